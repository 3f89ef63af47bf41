import { createConnection } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { withLimits } from '../feed/support.js';
import { startTls } from './support.js';

/** What the client of each protocol sends first, to which the service responds. */
const FIRST_BYTES = {
  http: 'GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n',
  grpc: Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]),
};

/** Opens a connection and returns whether the service responds on it or closes it. */
function open(port: number, protocol: keyof typeof FIRST_BYTES): Promise<'responds' | 'closes'> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {}).on('close', () => resolve('closes'));
    socket.on('data', () => resolve('responds'));
    socket.write(FIRST_BYTES[protocol]);
  });
}

it('each port accepts maxConnections connections and closes the next one', async () => {
  withLimits({ maxConnections: 3 });
  const { grpc, http } = await startTls({});
  for (const [protocol, port] of [
    ['http', http],
    ['grpc', Number(grpc.split(':')[1])],
  ] as const) {
    const opened = await Promise.all([open(port, protocol), open(port, protocol), open(port, protocol)]);
    expect(opened).toEqual(Array(3).fill('responds'));
    expect(await open(port, protocol)).toBe('closes');
  }
});
