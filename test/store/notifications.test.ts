import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { openDatabase } from '../../src/store/database.js';
import { type ListenTarget, listen } from '../../src/store/notifications.js';
import { startPostgres } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { connectPg } from '../support/sql.js';

/** A server that accepts connections and sends nothing; a client that ends its side gets no end in return. */
async function startSilentServer() {
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => undefined);
    sockets.push(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { sockets, address: `127.0.0.1:${port}` };
}

const targetOf = (url: string): ListenTarget => ({ setting: 'DATABASE_URL', url });

/** A file with a certificate; its content is not checked until it is used. */
function certificateFile(): string {
  const directory = mkdtempSync(join(tmpdir(), 'agentllm-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'ca.pem');
  writeFileSync(file, '');
  return file;
}

afterEach(() => {
  vi.useRealTimers();
});

describe('listen', () => {
  it.each(['DATABASE_URL', 'DATABASE_DIRECT_URL'] as const)(
    'names %s when a certificate file of this URL cannot be read',
    (setting) => {
      const url = 'postgres://u:canary@127.0.0.1:1/db?sslmode=verify-full&sslrootcert=/nowhere.pem';
      expect(() => listen({ setting, url }, () => undefined)).toThrow(
        `${setting}: sslrootcert /nowhere.pem cannot be read (ENOENT)`,
      );
    },
  );

  it('connects again when a certificate file has been removed since the start', async () => {
    const { sockets, address } = await startSilentServer();
    const file = certificateFile();
    const listener = listen(targetOf(`postgres://u:p@${address}/db?sslrootcert=${file}`), () => undefined);
    await vi.waitFor(() => expect(sockets).toHaveLength(1), { timeout: 10_000 });
    rmSync(file);
    sockets[0]?.destroy();
    await vi.waitFor(() => expect(sockets).toHaveLength(2), { timeout: 10_000 });
    await listener.close();
  });

  it('connects again when the server does not respond', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { sockets, address } = await startSilentServer();
    const listener = listen(targetOf(`postgres://u:p@${address}/db`), () => undefined);
    await vi.waitFor(() => expect(sockets).toHaveLength(1), { timeout: 10_000 });
    vi.advanceTimersByTime(10_000);
    await vi.waitFor(() => expect(sockets).toHaveLength(2), { timeout: 10_000 });
    await listener.close();
  });

  it('waits longer after each failure, and begins with the shortest pause again after it has listened', async () => {
    const postgres = await startPostgres();
    onTestFinished(() => postgres.stop());
    const proxy = await startProxy(Number(new URL(postgres.url).port));
    const url = proxy.through(await postgres.createDatabase());
    vi.spyOn(Math, 'random').mockReturnValue(1);
    onTestFinished(() => void vi.restoreAllMocks());
    const pauses: number[] = [];
    let failures = 3;
    proxy.onRequest = (_, link) => {
      if (failures-- > 0) link.cut();
    };
    let began = 0;
    const listener = listen(
      targetOf(url),
      () => {
        // The connection is lost as soon as it listens; the next two attempts fail.
        if (++began > 1) return;
        failures = 2;
        for (const link of proxy.links) link.cut();
      },
      async (ms) => void pauses.push(ms),
    );
    await vi.waitFor(() => expect(began).toBe(2), { timeout: 30_000 });
    expect(pauses).toEqual([250, 500, 1_000, 250, 500, 1_000]);
    await listener.close();
  });

  it('ends when it is closed while the server does not respond', async () => {
    const { sockets, address } = await startSilentServer();
    const listener = listen(targetOf(`postgres://u:p@${address}/db`), () => undefined);
    await vi.waitFor(() => expect(sockets).toHaveLength(1), { timeout: 10_000 });
    await listener.close();
  });

  it('ends when it is closed while it waits to connect again', async () => {
    const listener = listen(targetOf('postgres://u:p@127.0.0.1:1/db'), () => undefined);
    await new Promise((resolve) => setImmediate(resolve));
    await listener.close();
  });

  it('calls back when it begins to listen and for every notification', async () => {
    const postgres = await startPostgres();
    onTestFinished(() => postgres.stop());
    const url = await postgres.createDatabase();
    const received: (string | undefined)[] = [];
    const listener = listen(targetOf(url), (writer) => received.push(writer));
    await vi.waitFor(() => expect(received).toEqual([undefined]), { timeout: 10_000 });
    const session = await connectPg(url);
    await session.query(`notify agentllm_revision, 'a replica'`);
    await vi.waitFor(() => expect(received).toEqual([undefined, 'a replica']), { timeout: 10_000 });
    await session.end();
    await listener.close();
  });
});

describe('openDatabase', () => {
  it('returns DATABASE_DIRECT_URL as the target of LISTEN when it is set', async () => {
    const postgres = await startPostgres();
    onTestFinished(() => postgres.stop());
    const url = await postgres.createDatabase();
    const options = { url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: '', notify: true };
    for (const [directUrl, expected] of [
      [undefined, { setting: 'DATABASE_URL', url }],
      [`${url}?schema=public`, { setting: 'DATABASE_DIRECT_URL', url: `${url}?schema=public` }],
    ] as const) {
      const database = await openDatabase({ ...options, directUrl });
      expect(database.listenTarget).toEqual(expected);
      await database.close();
    }
  });
});
