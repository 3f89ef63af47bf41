import { once } from 'node:events';
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { acquireDirectoryLock, DirectoryInUseError } from '../../../src/store/embedded/directory_lock.js';
import { spawnChild, useDirectory } from './support.js';

test('a second owner is refused at once, by name, and has the directory after the release', async () => {
  const directory = join(useDirectory(), 'data');
  const lock = await acquireDirectoryLock(directory);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  const startedAt = performance.now();
  const refused = await acquireDirectoryLock(directory).catch((error: unknown) => error);
  expect(performance.now() - startedAt).toBeLessThan(300);
  expect(refused).toBeInstanceOf(DirectoryInUseError);
  expect(refused).toMatchObject({
    holderPid: process.pid,
    message: expect.stringContaining(`${directory} is in use by process ${process.pid}`),
  });
  await lock.release();
  await lock.release();
  await (await acquireDirectoryLock(directory)).release();
  expect(readdirSync(join(directory, '.lock'))).toEqual([]);
});

test('a second process is refused fast, naming the first', async () => {
  const directory = useDirectory();
  const holder = spawnChild(['lock', directory]);
  await holder.line(/^held/);
  const line = await spawnChild(['lock', directory]).line(/^refused/);
  expect(line).toContain(`holder=${holder.process.pid}`);
  expect(Number(/ms=(\d+)/.exec(line)?.[1])).toBeLessThan(500);
});

test('a stopped holder is not robbed, and answers again when it goes on', async () => {
  const directory = useDirectory();
  const holder = spawnChild(['lock', directory]);
  await holder.line(/^held/);
  holder.process.kill('SIGSTOP');
  await expect(acquireDirectoryLock(directory)).rejects.toMatchObject({ holderPid: holder.process.pid });
  // Many askers fill the backlog of a stopped holder; that is no death either.
  const many = await Promise.allSettled(Array.from({ length: 30 }, () => acquireDirectoryLock(directory)));
  expect(many.every(({ status }) => status === 'rejected')).toBe(true);
  holder.process.kill('SIGCONT');
  await expect(acquireDirectoryLock(directory)).rejects.toMatchObject({ holderPid: holder.process.pid });
});

test('a killed holder is taken over', async () => {
  const directory = useDirectory();
  for (let round = 0; round < 3; round++) {
    const holder = spawnChild(['lock', directory]);
    await holder.line(/^held/);
    holder.process.kill('SIGKILL');
    await holder.exited;
  }
  const lock = await acquireDirectoryLock(directory);
  expect(readdirSync(join(directory, '.lock')).length).toBe(1);
  await lock.release();
});

test('of eight processes at once exactly one holds', async () => {
  const directory = useDirectory();
  const first = Array.from({ length: 8 }, () => spawnChild(['lock', directory]));
  const outcomes = await Promise.all(first.map((child) => child.line(/^(held|refused)/)));
  const held = first.filter((_, index) => outcomes[index]?.startsWith('held'));
  expect(held.length).toBe(1);
  const holder = held[0];
  expect(outcomes.filter((line) => line.includes(`holder=${holder?.process.pid} `)).length).toBe(7);
});

test('of twenty claims at once in one process exactly one wins, many times over', async () => {
  const directory = useDirectory();
  for (let round = 0; round < 5; round++) {
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => acquireDirectoryLock(directory)));
    const won = outcomes.filter((outcome) => outcome.status === 'fulfilled');
    expect(won.length).toBe(1);
    await won[0]?.value.release();
  }
});

test('a path longer than a socket address is locked too', async () => {
  const directory = join(useDirectory(), 'a'.repeat(100), 'b'.repeat(100));
  const lock = await acquireDirectoryLock(directory);
  await expect(acquireDirectoryLock(directory)).rejects.toMatchObject({ holderPid: process.pid });
  expect(await spawnChild(['lock', directory]).line(/^refused/)).toContain(`holder=${process.pid}`);
  await lock.release();
  await (await acquireDirectoryLock(directory)).release();
});

test('an asker that stays connected does not hold up the release', async () => {
  const directory = useDirectory();
  const lock = await acquireDirectoryLock(directory);
  const [claim = ''] = readdirSync(join(directory, '.lock'));
  const asker = connect({ path: join(directory, '.lock', claim), allowHalfOpen: true });
  await once(asker, 'connect');
  asker.pause();
  const startedAt = performance.now();
  await lock.release();
  expect(performance.now() - startedAt).toBeLessThan(200);
  asker.destroy();
});

test('a file that is in the way of the lock, but no socket, is taken for the claim of a dead process', async () => {
  const directory = useDirectory();
  mkdirSync(join(directory, '.lock'));
  writeFileSync(join(directory, '.lock', 'claim-1-left.sock'), '');
  await (await acquireDirectoryLock(directory)).release();
});

test('a directory that cannot be used is explained', async () => {
  const directory = useDirectory();
  mkdirSync(join(directory, 'data'));
  const file = join(directory, 'data', 'file');
  writeFileSync(file, '');
  await expect(acquireDirectoryLock(file)).rejects.toThrow(/is not a directory: remove the file/);
});
