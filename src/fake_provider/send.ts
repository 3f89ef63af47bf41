import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { limits } from '../limits.js';
import type { Clock } from './clock.js';
import type { Step } from './plan.js';
import type { OpenEntry } from './request_log.js';

/** Real time for the client to read what was sent before a reset: some systems discard it at the reset. */
const RESET_DELAY_MS = 20;

/** Sends a response step by step, and stops when the client closes the connection. */
export class Sender {
  private readonly closed: Promise<unknown>;
  private isClosed = false;

  constructor(
    private readonly response: ServerResponse,
    private readonly clock: Clock,
    private readonly entry: OpenEntry,
  ) {
    this.closed = new Promise<void>((resolve) => response.once('close', resolve)).then(() => {
      this.isClosed = true;
    });
  }

  async run(steps: readonly Step[], headers: Readonly<Record<string, string>>): Promise<void> {
    for (const step of steps) {
      if (this.isClosed) return;
      if (step.kind === 'head') this.writeHead(step.status, { ...headers, ...step.headers });
      else if (step.kind === 'write') await this.write(step.data, step.tokens);
      else if (step.kind === 'wait') await this.wait(step.ms);
      else if (step.kind === 'hold') await this.hold(step);
      else if (step.kind === 'end') this.response.end();
      else await this.breakOff(step.kind);
    }
    await this.closed;
  }

  private writeHead(status: number, headers: Readonly<Record<string, string>>): void {
    this.entry.status = status;
    this.response.writeHead(status, headers);
    // Otherwise Node sends the headers together with the first part of the body.
    if (!('content-length' in headers)) this.response.flushHeaders();
  }

  private async write(data: string | Buffer, tokens = 0): Promise<void> {
    if (data.length === 0) return;
    this.entry.response_bytes += Buffer.byteLength(data);
    this.entry.tokens += tokens;
    if (!this.response.write(data)) await Promise.race([once(this.response, 'drain'), this.closed]);
  }

  private async wait(ms: number): Promise<void> {
    let cancel = () => {};
    const over = new Promise<void>((resolve) => {
      cancel = this.clock.schedule(ms, resolve);
    });
    await Promise.race([over, this.closed]);
    cancel();
  }

  private async hold({ text, everyMs, maxMs }: Extract<Step, { kind: 'hold' }>): Promise<void> {
    const end = this.clock.now() + (maxMs ?? limits.fakeProvider.holdMs);
    while (!this.isClosed && this.clock.now() < end) {
      const left = end - this.clock.now();
      await this.wait(text === undefined || everyMs === undefined ? left : Math.min(everyMs, left));
      if (text !== undefined && !this.isClosed) await this.write(text);
    }
    if (!this.isClosed) await this.breakOff('close');
  }

  /** Breaks the connection off when everything that was written has been passed to the system. */
  private async breakOff(how: 'close' | 'reset'): Promise<void> {
    const { socket } = this.response;
    if (!socket) return;
    this.entry.ended = 'fault';
    // Node passes the parts of a response to the socket in a later turn of the event loop.
    await new Promise(setImmediate);
    if (socket.destroyed) return;
    await new Promise<void>((resolve) => void socket.write('', () => resolve()));
    if (how === 'close') return void socket.destroySoon();
    await delay(RESET_DELAY_MS);
    socket.resetAndDestroy();
  }
}
