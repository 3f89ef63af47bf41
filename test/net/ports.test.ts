import { createServer, Server, Socket } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { checkAddress } from '../../src/net/ports.js';
import { freePort } from '../support/ports.js';

const addressOf = (port: number) => ({ host: '127.0.0.1', port, text: `127.0.0.1:${port}` });

describe('checkAddress', () => {
  it('accepts a free address', async () => {
    await expect(checkAddress('GRPC_ADDRESS', addressOf(await freePort()))).resolves.toBeUndefined();
  });

  it('names the setting and what to do when the address is used', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as { port: number };
    await expect(checkAddress('GRPC_ADDRESS', addressOf(port))).rejects.toThrow(
      `GRPC_ADDRESS 127.0.0.1:${port} cannot be listened on: another process uses it`,
    );
  });

  it('does not wait for clients that connect meanwhile and keep their connection open', async () => {
    const port = await freePort();
    const client = new Socket();
    onTestFinished(() => void client.destroy());
    const { close } = Server.prototype;
    const closing = vi.spyOn(Server.prototype, 'close').mockImplementationOnce(function (this: Server, done) {
      client.on('error', () => {}).connect(port, '127.0.0.1', () => close.call(this, done));
      return this;
    });
    onTestFinished(() => closing.mockRestore());
    await checkAddress('GRPC_ADDRESS', addressOf(port));
    expect(closing).toHaveBeenCalledOnce();
  });
});
