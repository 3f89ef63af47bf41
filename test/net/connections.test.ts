import { createConnection } from 'node:net';
import { expect, it, onTestFinished, vi } from 'vitest';
import { startTls } from './support.js';

vi.mock('../../src/limits.js', async (original) => {
  const module = await original<typeof import('../../src/limits.js')>();
  return { ...module, limits: { ...module.limits, maxConnections: 3 } };
});

/** A connection, and whether it is still there after a moment. */
function open(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {}).on('close', () => resolve(false));
    setTimeout(() => resolve(true), 300);
  });
}

it('each port takes so many connections and no more, and takes others when some have gone', async () => {
  const { grpc, http } = await startTls({});
  for (const port of [http, Number(grpc.split(':')[1])]) {
    const held = await Promise.all([open(port), open(port), open(port)]);
    expect(held).toEqual([true, true, true]);
    expect(await open(port)).toBe(false);
  }
});
