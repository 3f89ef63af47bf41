import { once } from 'node:events';
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { acquireDirectoryLock, DirectoryInUseError } from '../../../src/store/embedded/directory_lock.js';
import { spawnChild, useDirectory } from './support.js';

test('a second lock is rejected with the pid of the holder, which responds, and succeeds after the release', async () => {
  const directory = join(useDirectory(), 'data');
  const lock = await acquireDirectoryLock(directory);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  const rejection = await acquireDirectoryLock(directory).catch((error: unknown) => error);
  expect(rejection).toBeInstanceOf(DirectoryInUseError);
  expect(rejection).toMatchObject({
    holderPid: process.pid,
    message: expect.stringMatching(new RegExp(`${directory} is in use by process ${process.pid}.*since 2`)),
  });
  await lock.release();
  await lock.release();
  await (await acquireDirectoryLock(directory)).release();
  expect(readdirSync(join(directory, '.lock'))).toEqual([]);
});

test('a second process is rejected with the pid of the first, which responds', async () => {
  const directory = useDirectory();
  const holder = spawnChild(['lock', directory]);
  await holder.line(/^held/);
  const line = await spawnChild(['lock', directory]).line(/^refused/);
  expect(line).toContain(`holder=${holder.process.pid}`);
  expect(line).toContain('since 2');
});

test('a stopped holder keeps the lock and responds again when it continues', async () => {
  const directory = useDirectory();
  const holder = spawnChild(['lock', directory]);
  await holder.line(/^held/);
  holder.process.kill('SIGSTOP');
  await expect(acquireDirectoryLock(directory)).rejects.toMatchObject({ holderPid: holder.process.pid });
  // Many connections fill the backlog of a stopped holder; it must not be treated as dead for that reason.
  const many = await Promise.allSettled(Array.from({ length: 30 }, () => acquireDirectoryLock(directory)));
  expect(many.every(({ status }) => status === 'rejected')).toBe(true);
  holder.process.kill('SIGCONT');
  await expect(acquireDirectoryLock(directory)).rejects.toMatchObject({ holderPid: holder.process.pid });
});

test('the lock of a killed holder is acquired by the next process', async () => {
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

test('the lock is held by exactly one of eight processes that start at the same time', async () => {
  const directory = useDirectory();
  const first = Array.from({ length: 8 }, () => spawnChild(['lock', directory]));
  const outcomes = await Promise.all(first.map((child) => child.line(/^(held|refused)/)));
  const held = first.filter((_, index) => outcomes[index]?.startsWith('held'));
  expect(held.length).toBe(1);
  const holder = held[0];
  expect(outcomes.filter((line) => line.includes(`holder=${holder?.process.pid} `)).length).toBe(7);
});

test('the lock is acquired by exactly one of twenty concurrent claims of one process, in 5 rounds', async () => {
  const directory = useDirectory();
  for (let round = 0; round < 5; round++) {
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => acquireDirectoryLock(directory)));
    const acquired = outcomes.filter((outcome) => outcome.status === 'fulfilled');
    expect(acquired.length).toBe(1);
    await acquired[0]?.value.release();
  }
});

test('a directory is locked when its path is longer than a socket address', async () => {
  const directory = join(useDirectory(), 'a'.repeat(100), 'b'.repeat(100));
  const lock = await acquireDirectoryLock(directory);
  await expect(acquireDirectoryLock(directory)).rejects.toMatchObject({ holderPid: process.pid });
  expect(await spawnChild(['lock', directory]).line(/^refused/)).toContain(`holder=${process.pid}`);
  await lock.release();
  await (await acquireDirectoryLock(directory)).release();
});

test('the release does not wait for a client that stays connected', async () => {
  const directory = useDirectory();
  const lock = await acquireDirectoryLock(directory);
  const [claim = ''] = readdirSync(join(directory, '.lock'));
  const client = connect({ path: join(directory, '.lock', claim), allowHalfOpen: true });
  await once(client, 'connect');
  client.pause();
  await lock.release();
  expect(client.destroyed).toBe(false);
  client.destroy();
});

test('a file that is not a socket is treated as the claim of a dead process', async () => {
  const directory = useDirectory();
  mkdirSync(join(directory, '.lock'));
  writeFileSync(join(directory, '.lock', 'claim-1-left.sock'), '');
  await (await acquireDirectoryLock(directory)).release();
});

test('a directory that cannot be used causes an error with the reason', async () => {
  const directory = useDirectory();
  mkdirSync(join(directory, 'data'));
  const file = join(directory, 'data', 'file');
  writeFileSync(file, '');
  await expect(acquireDirectoryLock(file)).rejects.toThrow(/is not a directory: remove the file/);
});
