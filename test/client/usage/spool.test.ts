import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  appendFile,
  chmod,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { Segment } from '../../../src/client/usage/segment.js';
import { until } from '../../support/until.js';
import { idsOf, makeDirectory, receipt, startSpool } from './support.js';

type Started = ReturnType<typeof startSpool>;

const segmentsIn = async (directory: string): Promise<string[]> =>
  (await readdir(directory, { recursive: true }).catch(() => []))
    .filter((name) => name.endsWith('.usage'))
    .map((name) => join(directory, name));

/** Ends a spool like a killed process: nothing is flushed, and its claims end. */
async function kill({ sender, disk }: Started): Promise<void> {
  sender.close();
  await disk?.close();
}

/** Starts a spool on a directory and returns the ids that it sends until it has nothing left. */
async function deliver(directory: string, options = {}): Promise<string[]> {
  const started = startSpool({ directory, ...options });
  const { clock, service, sender, spool } = started;
  clock.advance(0);
  await until(() => spool.inMemory > 0 || started.warned.length > 0);
  await until(() => {
    clock.advance(500);
    for (const stream of service.streams) while (stream.acknowledged < stream.requests.length) stream.acknowledge();
    return sender.isDone;
  });
  await until(async () => (await segmentsIn(directory)).length === 0);
  return service.streams.flatMap(({ ids }) => ids);
}

/** The files of a directory that this process has open. */
async function openFilesIn(directory: string): Promise<string[]> {
  const names = await readdir('/proc/self/fd');
  const paths = await Promise.all(names.map((name) => readlink(join('/proc/self/fd', name)).catch(() => '')));
  return paths.filter((path) => path.startsWith(directory) && path.includes('.usage'));
}

/** Resolves when a directory has no entry other than `names`. */
const untilOnly = (directory: string, names: readonly string[]): Promise<unknown> =>
  until(async () => (await readdir(directory)).sort().join() === [...names].sort().join());
const untilEmpty = (directory: string) => untilOnly(directory, []);

describe('a spool in memory', () => {
  it('drops the newest attempt when its memory is full, and counts it', async () => {
    const { spool, warned } = startSpool({ maxMemoryRecords: 1_000 });
    spool.record(receipt(1_001));
    expect([spool.recorded, spool.dropped, spool.inMemory, spool.losses.size]).toEqual([1_001, 1, 1_000, 1]);
    expect(warned).toEqual(['USAGE_LOST']);
    expect(await spool.sync()).toBe(false);
  });

  it('has room again when the service has acknowledged attempts', async () => {
    const { spool, service } = startSpool({ maxMemoryRecords: 1_000 });
    spool.record(receipt(1_000));
    service.last.acknowledge();
    spool.record(receipt(200));
    expect(spool.dropped).toBe(0);
  });
});

describe('record', () => {
  it('returns before anything is written or sent', async () => {
    const directory = await makeDirectory();
    const { spool, service } = startSpool({ directory });
    const append = vi.spyOn(Segment.prototype, 'append');
    expect(spool.record(receipt(3))).toBeUndefined();
    expect(append).not.toHaveBeenCalled();
    expect(existsSync(directory)).toBe(false);
    expect(service.streams).toHaveLength(0);
    append.mockRestore();
  });

  it('never throws, also for a receipt that cannot be encoded', () => {
    const { spool } = startSpool();
    spool.record({ ...receipt(), revision: 'x' as never });
    expect([spool.dropped, spool.losses.size]).toEqual([1, 1]);
  });
});

describe('a spool on disk', () => {
  it('keeps attempts in files that only their owner can read', async () => {
    const directory = await makeDirectory();
    const { spool } = startSpool({ directory });
    spool.record(receipt());
    expect(await spool.sync()).toBe(true);
    const [segment = ''] = await segmentsIn(directory);
    const modes = [directory, join(segment, '..'), segment].map(async (path) => (await stat(path)).mode & 0o777);
    expect(await Promise.all(modes)).toEqual([0o700, 0o700, 0o600]);
  });

  it('delivers what a killed process has kept', async () => {
    const directory = await makeDirectory();
    const killed = startSpool({ directory });
    const receipts = Array.from({ length: 30 }, () => receipt(10));
    for (const one of receipts) killed.spool.record(one);
    await killed.spool.sync();
    await kill(killed);
    expect((await deliver(directory)).sort()).toEqual(idsOf(...receipts).sort());
    await untilEmpty(directory);
  });

  it('does not take the attempts of a live process over', async () => {
    const directory = await makeDirectory();
    const first = startSpool({ directory });
    first.spool.record(receipt());
    await first.spool.sync();
    const second = startSpool({ directory });
    second.clock.advance(0);
    second.spool.record(receipt());
    await second.spool.sync();
    expect(await segmentsIn(directory)).toHaveLength(2);
    expect([first.spool.inMemory, second.spool.inMemory]).toEqual([1, 1]);
  });

  it('deletes a segment when everything in it is acknowledged, and its directory at the end', async () => {
    const directory = await makeDirectory();
    const { spool, service, sender } = startSpool({ directory });
    spool.record(receipt(200));
    await spool.sync();
    service.last.acknowledge();
    sender.close();
    await spool.close();
    expect(await readdir(directory)).toEqual([]);
  });

  it('leaves what is not acknowledged to the next process when it is closed', async () => {
    const directory = await makeDirectory();
    const first = startSpool({ directory });
    const one = receipt();
    first.spool.record(one);
    first.sender.close();
    await first.spool.close();
    expect(await deliver(directory)).toEqual(idsOf(one));
  });

  it('moves attempts out of the memory and reads them back, within its bound', async () => {
    const directory = await makeDirectory();
    const { clock, spool, service, sender } = startSpool({ directory, maxMemoryRecords: 2_000 });
    const receipts = Array.from({ length: 60 }, () => receipt(100));
    for (const one of receipts) {
      spool.record(one);
      await spool.sync();
      expect(spool.inMemory).toBeLessThanOrEqual(2_000);
    }
    expect(spool.inMemory).toBeLessThanOrEqual(1_100);
    const flushed = sender.flush(60_000);
    await until(() => {
      for (const stream of service.streams) while (stream.acknowledged < stream.requests.length) stream.acknowledge();
      expect(spool.inMemory).toBeLessThanOrEqual(2_000);
      return sender.isDone;
    });
    expect(await flushed).toBe(true);
    expect(service.streams.flatMap(({ ids }) => ids).sort()).toEqual(idsOf(...receipts).sort());
    expect(spool.dropped).toBe(0);
    clock.advance(10_000);
  });

  it('cuts the end of an interrupted write off', async () => {
    const directory = await makeDirectory();
    const killed = startSpool({ directory });
    const receipts = Array.from({ length: 5 }, () => receipt());
    for (const one of receipts) {
      killed.spool.record(one);
      await killed.spool.sync();
    }
    await kill(killed);
    const [segment = ''] = await segmentsIn(directory);
    await truncate(segment, (await stat(segment)).size - 7);
    expect((await deliver(directory)).sort()).toEqual(idsOf(...receipts.slice(0, 4)).sort());
  });

  it('delivers the rest of a damaged segment, and warns', async () => {
    const directory = await makeDirectory();
    const killed = startSpool({ directory });
    const receipts = Array.from({ length: 3 }, () => receipt());
    for (const one of receipts) killed.spool.record(one);
    await killed.spool.sync();
    await kill(killed);
    const [segment = ''] = await segmentsIn(directory);
    const bytes = await readFile(segment);
    bytes[20] = (bytes[20] as number) ^ 0xff;
    await writeFile(segment, bytes);
    expect(await deliver(directory)).toEqual(idsOf(...receipts.slice(1)));
  });

  it('removes a segment without an attempt, and ignores files that are not its own', async () => {
    const directory = await makeDirectory();
    const killed = startSpool({ directory });
    killed.spool.record(receipt());
    await killed.spool.sync();
    await kill(killed);
    const [segment = ''] = await segmentsIn(directory);
    await writeFile(segment, 'not a segment');
    await writeFile(join(directory, 'notes'), 'mine');
    await mkdir(join(directory, 'other'));
    const next = startSpool({ directory });
    next.clock.advance(0);
    await until(async () => (await segmentsIn(directory)).length === 0);
    await untilOnly(directory, ['notes', 'other']);
  });

  /** Starts a spool on a directory of this name, and waits until one with attempts beside it is delivered. */
  async function scanBeside(name: string, prepare: (path: string) => Promise<unknown>): Promise<string> {
    const directory = await makeDirectory();
    const killed = startSpool({ directory });
    killed.spool.record(receipt());
    await killed.spool.sync();
    await kill(killed);
    await mkdir(join(directory, name, '.lock'), { recursive: true });
    await prepare(join(directory, name));
    await deliver(directory);
    return directory;
  }

  it('removes the empty directory of a process that was killed after all was delivered', async () => {
    // A connection to an ordinary file is refused, like one to the socket of a killed process.
    const dead = (path: string) => writeFile(join(path, '.lock', `claim-1-${randomUUID()}.sock`), '');
    await untilEmpty(await scanBeside(randomUUID(), dead));
  });

  it('removes what a process that was killed while it removed its directory has left', async () => {
    await untilEmpty(await scanBeside(`removed-${randomUUID()}`, async () => undefined));
  });

  it('leaves a new directory to the process that is about to claim it, and removes an old one', async () => {
    const name = randomUUID();
    await untilOnly(await scanBeside(name, async () => undefined), [name]);
    const old = new Date(Date.now() - 120_000);
    await untilEmpty(await scanBeside(randomUUID(), (path) => utimes(path, old, old)));
  });

  it('leaves a directory with a file that is not from a spool', async () => {
    const name = randomUUID();
    const old = new Date(Date.now() - 120_000);
    const directory = await scanBeside(name, async (path) => {
      await writeFile(join(path, 'notes'), 'mine');
      await utimes(path, old, old);
    });
    await untilOnly(directory, [name]);
    expect(await readFile(join(directory, name, 'notes'), 'utf8')).toBe('mine');
  });

  it('loses nothing and keeps no file open when its directory is deleted', async () => {
    const directory = await makeDirectory();
    const { clock, spool } = startSpool({ directory });
    for (let at = 0; at < 3; at++) {
      spool.record(receipt(200));
      await spool.sync();
      await rm(directory, { recursive: true, force: true });
    }
    spool.record(receipt(2_000));
    // The first write fails; a later one uses a new directory.
    await until(async () => {
      clock.advance(5_000);
      return spool.sync();
    });
    expect(await openFilesIn(directory)).toHaveLength(1);
    expect(spool.dropped).toBe(0);
  });
});

describe('a spool whose disk fails', () => {
  it('goes on in memory while the directory is not writable, warns once, and writes later', async () => {
    const directory = await makeDirectory();
    await writeFile(directory, 'a file in the place of the directory');
    const { clock, spool, service, warned, messages } = startSpool({ directory });
    for (let at = 0; at < 5; at++) {
      spool.record(receipt(100));
      expect(await spool.sync()).toBe(false);
      clock.advance(5_000);
    }
    expect(warned).toEqual(['USAGE_SPOOL_FAILED']);
    expect(messages[0]).toContain(directory);
    expect(service.last.ids.length).toBeGreaterThan(0);
    await rm(directory);
    clock.advance(5_000);
    expect(await spool.sync()).toBe(true);
    expect(spool.dropped).toBe(0);
  });

  it('keeps what it has when the disk is full, and loses nothing when it has space again', async () => {
    const directory = await makeDirectory();
    const { clock, spool } = startSpool({ directory });
    const first = receipt();
    spool.record(first);
    await spool.sync();
    const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    const append = vi.spyOn(Segment.prototype, 'append').mockImplementation(async function (this: Segment) {
      await appendFile(this.path, 'half of a fra');
      await this.seal();
      throw full;
    });
    const second = receipt();
    spool.record(second);
    expect(await spool.sync()).toBe(false);
    append.mockRestore();
    clock.advance(5_000);
    expect(await spool.sync()).toBe(true);
    await spool.close();
    expect((await deliver(directory)).sort()).toEqual(idsOf(first, second).sort());
  });

  it('stops writing at its limit, drops only when the memory is full too, and goes on when segments are deleted', async () => {
    const directory = await makeDirectory();
    const limit = 1024 * 1024;
    const { spool, service, sender, warned } = startSpool({ directory, maxMemoryRecords: 1_000, maxDiskBytes: limit });
    for (let at = 0; at < 100; at++) {
      spool.record(receipt(100));
      await spool.sync();
      expect(spool.diskBytes).toBeLessThanOrEqual(limit);
      expect(spool.inMemory).toBeLessThanOrEqual(1_000);
    }
    expect(warned).toEqual(['USAGE_SPOOL_FAILED', 'USAGE_LOST']);
    expect(spool.dropped).toBeGreaterThan(0);
    const flushed = sender.flush(60_000);
    await until(() => {
      for (const stream of service.streams) while (stream.acknowledged < stream.requests.length) stream.acknowledge();
      return sender.isDone;
    });
    expect(await flushed).toBe(true);
    const sent = service.streams.flatMap(({ requests }) => requests);
    expect(sender.acknowledged).toBe(10_000 - spool.dropped);
    const lost = sent.flatMap(({ losses }) => losses).reduce((sum, { attempts }) => sum + attempts, 0n);
    expect(lost).toBe(BigInt(spool.dropped));
    spool.record(receipt());
    expect(await spool.sync()).toBe(true);
  });

  it.skipIf(process.getuid?.() === 0)('warns when it may not enter the directory', async () => {
    const directory = await makeDirectory();
    await mkdir(directory);
    await chmod(directory, 0o000);
    const { spool, warned } = startSpool({ directory });
    spool.record(receipt());
    expect(await spool.sync()).toBe(false);
    expect(warned).toContain('USAGE_SPOOL_FAILED');
    await chmod(directory, 0o700);
  });
});
