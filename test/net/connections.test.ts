import { createConnection } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { withLimits } from '../feed/support.js';
import { startTls } from './support.js';

/** Opens a connection and returns whether it is still open after 300 ms. */
function open(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {}).on('close', () => resolve(false));
    setTimeout(() => resolve(true), 300);
  });
}

it('each port accepts maxConnections connections and closes the next one', async () => {
  withLimits({ maxConnections: 3 });
  const { grpc, http } = await startTls({});
  for (const port of [http, Number(grpc.split(':')[1])]) {
    const accepted = await Promise.all([open(port), open(port), open(port)]);
    expect(accepted).toEqual([true, true, true]);
    expect(await open(port)).toBe(false);
  }
});
