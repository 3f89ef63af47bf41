import { type FileHandle, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TEMPORARY_SUFFIX, writeFileAtomically } from '../src/atomic_file.js';

const files = vi.hoisted(() => ({ fail: new Map<string, string>() }));

vi.mock('node:fs/promises', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:fs/promises')>();
  const failing =
    <Name extends 'link' | 'rename' | 'open'>(name: Name) =>
    async (...args: unknown[]): Promise<unknown> => {
      const code = files.fail.get(name);
      if (code) throw Object.assign(new Error(code), { code });
      const result = await (original[name] as (...args: unknown[]) => Promise<unknown>)(...args);
      const failure = name === 'open' && files.fail.get('sync');
      const sync = () => Promise.reject(Object.assign(new Error(`${failure}`), { code: failure }));
      if (failure) Object.assign(result as FileHandle, { sync });
      return result;
    };
  return { ...original, link: failing('link'), rename: failing('rename'), open: failing('open') };
});

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agentllm-atomic-'));
  path = join(directory, 'file');
});
afterEach(async () => {
  files.fail.clear();
  await rm(directory, { recursive: true });
});

const write = (text: string, overwrite?: boolean) =>
  writeFileAtomically(path, Buffer.from(text), { mode: 0o600, ...(overwrite !== undefined && { overwrite }) });
const text = () => readFile(path, 'utf8');

describe('writeFileAtomically', () => {
  it('writes a file with the given mode and leaves no temporary file', async () => {
    await writeFileAtomically(path, [Buffer.from('one '), Buffer.from('two')], { mode: 0o600 });
    expect(await text()).toBe('one two');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(['file']);
  });

  it('replaces an existing file by default', async () => {
    await writeFile(path, 'a longer text before');
    await write('after');
    expect(await text()).toBe('after');
  });

  it('names its temporary file with a recognizable suffix', async () => {
    files.fail.set('rename', 'EIO');
    const seen: string[] = [];
    const polling = setInterval(async () => seen.push(...(await readdir(directory).catch(() => []))), 0);
    await writeFileAtomically(path, Buffer.alloc(20_000_000), { mode: 0o600 }).catch(() => {});
    clearInterval(polling);
    expect(new Set(seen.map((name) => name.slice('file'.length))).size).toBe(1);
    expect(seen[0]?.slice('file'.length)).toMatch(TEMPORARY_SUFFIX);
  });

  describe.each([true, false])('with overwrite %s', (overwrite) => {
    it('leaves neither a file nor a temporary file when a part of the content cannot be written', async () => {
      const parts = [Buffer.from('half'), undefined as unknown as Buffer];
      await expect(writeFileAtomically(path, parts, { mode: 0o600, overwrite })).rejects.toThrow();
      expect(await readdir(directory)).toEqual([]);
    });

    it('leaves neither a file nor a temporary file when the content cannot be synced', async () => {
      files.fail.set('sync', 'ENOSPC');
      await expect(write('text', overwrite)).rejects.toMatchObject({ code: 'ENOSPC' });
      expect(await readdir(directory)).toEqual([]);
    });

    it('leaves neither a file nor a temporary file when the final name cannot be created', async () => {
      for (const name of ['link', 'rename']) files.fail.set(name, 'EIO');
      await expect(write('text', overwrite)).rejects.toMatchObject({ code: 'EIO' });
      expect(await readdir(directory)).toEqual([]);
    });

    it('leaves a directory with the final name unchanged', async () => {
      await mkdir(path);
      await expect(write('text', overwrite)).rejects.toThrow();
      expect(await readdir(directory)).toEqual(['file']);
    });
  });

  it('leaves an existing file unchanged when it fails', async () => {
    await writeFile(path, 'before');
    files.fail.set('rename', 'EIO');
    await expect(write('after')).rejects.toMatchObject({ code: 'EIO' });
    expect(await text()).toBe('before');
    expect(await readdir(directory)).toEqual(['file']);
  });
});

describe.each([
  ['hard links', undefined],
  ['no hard links', 'EPERM'],
])('writeFileAtomically without overwriting, on a file system with %s', (_, code) => {
  beforeEach(() => void (code && files.fail.set('link', code)));

  it('writes a new file', async () => {
    await write('text', false);
    expect(await text()).toBe('text');
    expect(await readdir(directory)).toEqual(['file']);
  });

  it('rejects with EEXIST and keeps the existing file', async () => {
    await writeFile(path, 'before');
    await expect(write('after', false)).rejects.toMatchObject({ code: 'EEXIST' });
    expect(await text()).toBe('before');
    expect(await readdir(directory)).toEqual(['file']);
  });

  it('succeeds for exactly one of several concurrent writers', async () => {
    const results = await Promise.allSettled(['a', 'b', 'c', 'd'].map((content) => write(content, false)));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await text()).toBe(['a', 'b', 'c', 'd'][results.findIndex(({ status }) => status === 'fulfilled')]);
    expect(await readdir(directory)).toEqual(['file']);
  });
});
