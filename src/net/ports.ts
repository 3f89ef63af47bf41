import { createServer } from 'node:net';
import type { Address } from '../config.js';
import { StartError } from '../errors.js';

/**
 * Rejects an address that the service cannot listen on, before anything is opened: the most frequent problem is a
 * service that already runs.
 */
export function checkAddress(setting: string, { host, port, text }: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    // Clients of an earlier process reconnect as soon as the port is open. The probe would be open as long as they are.
    const probe = createServer((socket) => socket.destroy());
    probe.once('error', (error: NodeJS.ErrnoException) => {
      const taken = 'another process uses it; stop that process or set another address';
      const cause = error.code === 'EADDRINUSE' ? taken : (error.code ?? 'this machine does not have the address');
      reject(new StartError(`${setting} ${text} cannot be listened on: ${cause}`));
    });
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}
