import { onAbort } from '../abort.js';
import { limits } from '../limits.js';
import { AgentLLMError } from './error.js';

/** Waits for shared work: the signal ends the wait, not the work. A wait keeps the process alive. */
export function waitFor<T>(work: Promise<T>, signal: AbortSignal | undefined, method: string): Promise<T> {
  const keepAlive = setInterval(() => {}, limits.maxTimerMs);
  let release = () => {};
  const aborted = new Promise<never>((_, reject) => {
    release = onAbort(signal, () =>
      reject(AgentLLMError.here('The caller aborted the wait', { code: 'CANCELLED', method, cause: signal?.reason })),
    );
  });
  return Promise.race([work, aborted]).finally(() => {
    clearInterval(keepAlive);
    release();
  });
}
