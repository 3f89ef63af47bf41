import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** sun_path holds 104 bytes on macOS and 108 on Linux, with the closing zero. */
const LONGEST_SOCKET_PATH = 103;

/** Runs `use` with a path to `directory/name` that fits into a socket address, through a symbolic link if need be. */
export async function withShortPath<T>(directory: string, name: string, use: (path: string) => Promise<T>): Promise<T> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= LONGEST_SOCKET_PATH) return use(path);
  const shortcut = await mkdtemp(join(tmpdir(), 'agentllm-'));
  try {
    const link = join(shortcut, 'd');
    const linked = join(link, name);
    if (Buffer.byteLength(linked) > LONGEST_SOCKET_PATH) {
      throw Object.assign(new Error(`${linked} does not fit into a socket address`), { code: 'ENAMETOOLONG' });
    }
    await symlink(directory, link);
    return await use(linked);
  } finally {
    await rm(shortcut, { recursive: true, force: true });
  }
}
