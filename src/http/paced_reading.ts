import type { IncomingMessage } from 'node:http';

/** Chunks of bodies, of up to 64 KiB each, that are read in one turn of the event loop. */
const CHUNKS_PER_TURN = 8;

/** Requests that wait for their next chunk. */
const waiting: IncomingMessage[] = [];

/**
 * Pauses a request after a chunk of its body, and resumes it in its turn. Node reads up to 2 MB of one connection before
 * it continues with the next, and accepts one connection in each turn of the event loop. While 200 clients sent bodies
 * of 4 MB, a new connection waited for 2 s.
 */
export function pauseUntilNextTurn(request: IncomingMessage): void {
  request.pause();
  waiting.push(request);
  if (waiting.length === 1) setImmediate(resumeNext);
}

function resumeNext(): void {
  for (const request of waiting.splice(0, CHUNKS_PER_TURN)) request.resume();
  if (waiting.length > 0) setImmediate(resumeNext);
}
