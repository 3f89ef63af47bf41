import { type LogFn, type Logger, pino } from 'pino';

export type Log = Logger;

/** Names under which a secret could stand in what is logged, at any of the depths that we log. */
const SECRETS = ['api_key', 'authorization', 'password', 'token', 'secret', 'ENCRYPTION_KEY', 'DATABASE_URL'];

/** The structured log: one JSON object a line on standard error, so that standard output stays free for answers. */
export function createLog(level: string): Log {
  return pino(
    {
      level,
      base: { pid: process.pid },
      redact: { paths: SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[redacted]' },
      serializers: { err: describeError },
      hooks: { logMethod: withoutMessage },
    },
    pino.destination({ dest: 2, sync: true }),
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
