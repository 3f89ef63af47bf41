import { setTimeout as delay } from 'node:timers/promises';
import { type LogFn, type Logger, pino } from 'pino';
import { limits } from './limits.js';

export type Log = Logger;

/** Field names that can hold a secret. They are redacted at every depth that the service logs. */
const SECRETS = ['api_key', 'authorization', 'password', 'token', 'secret', 'ENCRYPTION_KEY', 'DATABASE_URL'];

type Stream = Pick<NodeJS.WriteStream, 'write' | 'writableLength' | 'on'>;

/**
 * The standard error of the service. A write never blocks, never throws and never ends the process: if the stream is
 * closed, full or not read, lines are dropped and counted. When the stream accepts lines again, a warning reports the
 * number of dropped lines.
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

  /** Resolves when all lines are written, or after `limits.logDrainMs`. */
  async drained(): Promise<void> {
    const deadline = performance.now() + limits.logDrainMs;
    while (this.stream.writableLength > 0 && performance.now() < deadline) await delay(10);
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

/** The log output of this process, created once. */
export function logOutput(): LogOutput {
  if (!output) {
    // Node writes to a terminal synchronously: a terminal that is stopped with Ctrl-S, or has lost its connection,
    // would block the service. Pipes, sockets and files do not block in Node.
    const { _handle: handle } = process.stderr as { _handle?: { setBlocking?(on: boolean): unknown } };
    handle?.setBlocking?.(false);
    output = new LogOutput(process.stderr);
  }
  return output;
}

/** The structured log: one JSON object per line on standard error. Standard output stays free for command output. */
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

/**
 * Adds a fixed text to a line that has only an error; pino would copy the error's message, which can contain values.
 */
function withoutMessage(this: Logger, args: Parameters<LogFn>, method: LogFn): void {
  const [first, text] = args as [unknown, string?];
  if (first instanceof Error) method.call(this, { err: first }, text ?? 'an error');
  else if (text === undefined && typeof first === 'object') method.call(this, first, 'an error');
  else method.apply(this, args);
}

/**
 * Describes an error for the log, without its message if that can contain user data: Knex puts the SQL with its values
 * into messages, and PostgreSQL repeats values.
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
