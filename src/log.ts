import { setTimeout as delay } from 'node:timers/promises';
import { type LogFn, type Logger, pino } from 'pino';
import { limits } from './limits.js';

export type Log = Logger;

/** Names under which a secret could stand in what is logged, at any of the depths that we log. */
const SECRETS = ['api_key', 'authorization', 'password', 'token', 'secret', 'ENCRYPTION_KEY', 'DATABASE_URL'];

type Stream = Pick<NodeJS.WriteStream, 'write' | 'writableLength' | 'on'>;

/**
 * Standard error of the service. A write never blocks, never throws and never
 * ends the process: if the stream is closed, full or not read, lines are dropped
 * and counted, and a warning states how many as soon as the stream takes lines again.
 */
export class LogOutput {
  private dropped = 0;

  constructor(private readonly stream: Stream) {
    // Without a listener, the first failed write would end the process.
    stream.on('error', () => {});
  }

  write(line: string): void {
    if (this.stream.writableLength > limits.logBufferBytes) {
      this.dropped += 1;
      return;
    }
    const { dropped } = this;
    this.dropped = 0;
    if (dropped > 0) this.send(droppedLine(dropped), dropped);
    this.send(line, 1);
  }

  /** Resolves when everything is written, or after `limits.logDrainMs`. */
  async drained(): Promise<void> {
    const giveUpAt = performance.now() + limits.logDrainMs;
    while (this.stream.writableLength > 0 && performance.now() < giveUpAt) await delay(10);
  }

  private send(line: string, lines: number): void {
    this.stream.write(line, (error) => {
      if (error) this.dropped += lines;
    });
  }
}

const droppedLine = (count: number) =>
  `${JSON.stringify({ level: 40, time: Date.now(), pid: process.pid, count, msg: 'log lines were dropped: standard error was closed, full or not read' })}\n`;

let output: LogOutput | undefined;

/** The one output of this process. */
export function logOutput(): LogOutput {
  if (!output) {
    // Node writes to a terminal synchronously: one that is stopped with Ctrl-S, or whose connection is lost, would stop
    // the service. Pipes and sockets never block in Node, and files do not either.
    const { _handle: handle } = process.stderr as { _handle?: { setBlocking?(on: boolean): unknown } };
    handle?.setBlocking?.(false);
    output = new LogOutput(process.stderr);
  }
  return output;
}

/** The structured log: one JSON object a line on standard error, so that standard output stays free for responses. */
export function createLog(level: string): Log {
  return pino(
    {
      level,
      base: { pid: process.pid },
      redact: { paths: SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[redacted]' },
      serializers: { err: describeError },
      hooks: { logMethod: withoutMessage },
    },
    logOutput(),
  );
}

/** Gives a line that has only an error a text of its own: pino would copy the error's message. */
function withoutMessage(this: Logger, args: Parameters<LogFn>, method: LogFn): void {
  const [first, text] = args as [unknown, string?];
  if (first instanceof Error) method.call(this, { err: first }, text ?? 'an error');
  else if (text === undefined && typeof first === 'object') method.call(this, first, 'an error');
  else method.apply(this, args);
}

/**
 * An error without its message where that may hold what people sent: Knex puts
 * the SQL with its values into messages, and PostgreSQL echoes values.
 */
export function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code, severity, constraint, table, column, routine } = error as Error & Record<string, unknown>;
  const fromDatabase = typeof severity === 'string' || routine !== undefined || / - /.test(error.message);
  const frames = (error.stack ?? '').split('\n').filter((line) => /^ {4}at .*:\d+:\d+\)?$/.test(line));
  return {
    type: error.name,
    ...(fromDatabase ? { code, severity, constraint, table, column, routine } : { code, message: error.message }),
    stack: frames.slice(0, 12).map((line) => line.trim()),
    ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }),
  };
}
