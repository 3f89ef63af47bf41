import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { agentllm, useDirectories } from '../support/command.js';

/* An invalid DATA_DIR is reported, and no store is created in another directory. */

const directory = useDirectories();
const mounts: string[] = [];
afterEach(() => {
  for (const mount of mounts.splice(0)) spawnSync('umount', [mount]);
});

/** Mounts a read-only file system; undefined when the user may not mount one. */
function mountReadOnly(at: string): string | undefined {
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'ro,size=1m', 'tmpfs', at]).status !== 0) return undefined;
  mounts.push(at);
  return at;
}

const serve = (DATA_DIR: string) => agentllm(['serve'], { DATA_DIR }).ended;

describe('DATA_DIR', () => {
  it.each(['', 'store', 'deep/er/store'])(
    'on a read-only file system is rejected with the cause: /%s',
    async (path) => {
      const mount = mountReadOnly(await directory());
      if (mount === undefined) return;
      const DATA_DIR = join(mount, path);
      const { code, stderr } = await serve(DATA_DIR);
      expect(code).toBe(1);
      expect(stderr).toContain(`The data directory ${DATA_DIR} is on a read-only file system`);
      expect(stderr).not.toContain('ENOENT');
    },
  );

  it('through a dangling symbolic link is rejected with the cause', async () => {
    const parent = await directory();
    await symlink('/nowhere/at/all', join(parent, 'link'));
    const { code, stderr } = await serve(join(parent, 'link'));
    expect(code).toBe(1);
    expect(stderr).toMatch(/symbolic link in its path is dangling|is not a directory/);
  });

  it.each(['\r', ' '])('that ends with white space is rejected and not created: %j', async (space) => {
    const path = join(await directory.started(), 'data');
    await mkdir(path);
    const { code, stderr } = await serve(`${path}${space}`);
    expect(code).toBe(1);
    expect(stderr).toContain('DATA_DIR begins or ends with white space');
    expect(existsSync(`${path}${space}`)).toBe(false);
  });
});
