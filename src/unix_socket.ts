import { mkdtemp, rm, symlink } from 'node:fs/promises';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** sun_path has 104 bytes on macOS and 108 on Linux, including the terminating zero. */
const MAX_SOCKET_PATH_BYTES = 103;

/** Runs `use` with a path to `directory/name` that fits into a socket address, if necessary through a symbolic link. */
export async function withShortPath<T>(directory: string, name: string, use: (path: string) => Promise<T>): Promise<T> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return use(path);
  const shortcut = await mkdtemp(join(tmpdir(), 'agentllm-'));
  try {
    const link = join(shortcut, 'd');
    const linked = join(link, name);
    if (Buffer.byteLength(linked) > MAX_SOCKET_PATH_BYTES) {
      throw Object.assign(new Error(`${linked} does not fit into a socket address`), { code: 'ENAMETOOLONG' });
    }
    await symlink(directory, link);
    return await use(linked);
  } finally {
    await rm(shortcut, { recursive: true, force: true });
  }
}

/**
 * Listens on the socket `directory/name`; the server does not keep the process alive. If it cannot accept a connection
 * later (too many open files), the socket stays and the client gets no response.
 */
export function listenInDirectory(server: Server, directory: string, name: string): Promise<void> {
  return withShortPath(
    directory,
    name,
    (path) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(path, () => {
          server.off('error', reject);
          server.on('error', () => undefined);
          server.unref();
          resolve();
        });
      }),
  );
}
