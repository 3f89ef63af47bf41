import dns from 'node:dns/promises';
import { createServer } from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { connect } from 'node:net';
import { expect, it, onTestFinished, vi } from 'vitest';
import { listenOnAll } from '../../src/net/listen.js';

const HOSTS = ['127.0.0.1', '127.0.0.2'];

/** Makes every name resolve to both hosts, as `localhost` resolves to an IPv4 and an IPv6 address. */
function useTwoAddresses(): void {
  const lookup = vi.spyOn(dns, 'lookup').mockResolvedValue(HOSTS.map((address) => ({ address, family: 4 })) as never);
  syncBuiltinESMExports();
  onTestFinished(() => {
    lookup.mockRestore();
    syncBuiltinESMExports();
  });
}

it('a server listens on all addresses of a host name, on one port, until it stops', async () => {
  useTwoAddresses();
  const address = { host: 'localhost', port: 0, text: 'localhost:0' };
  const listener = await listenOnAll('HTTP_ADDRESS', address, () => createServer());
  onTestFinished(() => listener.destroy());
  const accepts = (host: string) =>
    new Promise<boolean>((resolve) => {
      const socket = connect(listener.port, host, () => socket.destroy());
      socket.on('error', () => resolve(false)).on('close', () => resolve(true));
    });
  expect(await Promise.all(HOSTS.map(accepts))).toEqual([true, true]);
  await listener.stop();
  expect(await Promise.all(HOSTS.map(accepts))).toEqual([false, false]);
});

it('names the setting and the cause when no address can be listened on', async () => {
  const taken = await listenOnAll('HTTP_ADDRESS', { host: '127.0.0.1', port: 0, text: '127.0.0.1:0' }, () =>
    createServer(),
  );
  onTestFinished(async () => {
    await taken.stop();
  });
  const { port } = taken;
  const address = { host: '127.0.0.1', port, text: `127.0.0.1:${port}` };
  await expect(listenOnAll('HTTP_ADDRESS', address, () => createServer())).rejects.toThrow(
    `HTTP_ADDRESS 127.0.0.1:${port} cannot be listened on: listen EADDRINUSE`,
  );
});
