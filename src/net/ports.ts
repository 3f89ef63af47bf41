import { createServer } from 'node:net';
import type { Address } from '../config.js';
import { StartError } from '../errors.js';

/**
 * Refuses an address that cannot be listened on before anything is opened: the
 * likeliest mistake of a start is one that runs already, and grpc-js says it in
 * a way of its own.
 */
export function checkAddress(setting: string, { host, port, text }: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => {
      const taken = 'another process uses it; stop that one or set another address';
      const why = error.code === 'EADDRINUSE' ? taken : (error.code ?? 'the address is not one of this machine');
      reject(new StartError(`${setting} ${text} cannot be listened on: ${why}`));
    });
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}
