import { isIP } from 'node:net';
import { z } from 'zod';
import { addressList, isLoopback as isLoopbackAddress } from './domain/addresses.js';
import { DatabaseUrlError, parseDatabaseUrl } from './domain/database_url.js';
import { readAllowedVariables, variableProblem } from './domain/key_choice.js';
import { StartError } from './errors.js';

/** Where a server listens. */
export interface Address {
  readonly host: string;
  readonly port: number;
  /** As it was written. */
  readonly text: string;
}

const whole = (min: number, max: number, unset: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`)
    .default(unset);

const address = z.string().transform((text, context): Address => {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host && Number(port) <= 65_535 && (!bracketed || isIP(bracketed) === 6))
    return { host, port: Number(port), text };
  context.addIssue({ code: 'custom', message: 'must be host:port, for example 127.0.0.1:50051 or [::1]:50051' });
  return z.NEVER;
});

const postgresUrl = z
  .string()
  .superRefine((text, context) => {
    try {
      parseDatabaseUrl(text);
    } catch (error) {
      if (!(error instanceof DatabaseUrlError)) throw error;
      context.addIssue({ code: 'custom', message: error.message });
    }
  })
  .optional();

/** White space is part of a path, so it is not trimmed: a store in another directory would be a new, empty one. */
const path = z
  .string()
  .refine(
    (text) => text === text.trim(),
    'begins or ends with white space, such as the carriage return of a file with Windows line endings; remove it',
  );

const switchable = (unset: 'on' | 'off') =>
  z
    .enum(['on', 'off'], { error: () => 'must be on or off' })
    .default(unset)
    .transform((value) => value === 'on');

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** How long something is kept, in ms; no end is infinity. */
const retention = (unset: string) =>
  z
    .string()
    .regex(/^([1-9]\d{0,5}[smhd]|forever)$/, 'must be a time such as 30s, 15m, 24h or 7d, or forever')
    .transform((text) =>
      text === 'forever' ? Number.POSITIVE_INFINITY : Number(text.slice(0, -1)) * (UNITS[text.slice(-1)] as number),
    )
    .prefault(unset);

const cidrs = z
  .string()
  .default('')
  .transform((text, context) => {
    const ranges = text
      .split(',')
      .map((range) => range.trim())
      .filter(Boolean);
    try {
      return addressList(ranges);
    } catch {
      context.addIssue({
        code: 'custom',
        message: 'must be address ranges such as 127.0.0.0/8,fd00::/8',
      });
      return z.NEVER;
    }
  });

const keyVariables = z
  .string()
  .default('')
  .transform((text, context) => {
    const names = readAllowedVariables(text);
    if (names.every((name) => variableProblem(name) === undefined)) return names;
    context.addIssue({ code: 'custom', message: 'must be names such as MY_LLM_API_KEY,OTHER_API_KEY' });
    return z.NEVER;
  });

/** What a setting is for, as the README's table and `agentllm serve --help` say it. */
interface Setting {
  readonly schema: z.ZodType;
  readonly unset: string;
  readonly about: string;
  readonly isPath: boolean;
}
const setting = <S extends z.ZodType>(schema: S, unset: string, about: string) => ({
  schema,
  unset,
  about,
  isPath: false,
});
const pathSetting = <S extends z.ZodType>(schema: S, unset: string, about: string) => ({
  ...setting(schema, unset, about),
  isPath: true,
});
const providerKey = (provider: string) =>
  setting(
    z.string().optional(),
    'none',
    `The key of ${provider}, with which the service checks configs and nothing else`,
  );

/** Every setting of the service: the one table that is read, documented and tested. */
export const settings = {
  GRPC_ADDRESS: setting(address.prefault('127.0.0.1:50051'), '127.0.0.1:50051', 'Where the gRPC service listens'),
  HTTP_ADDRESS: setting(
    z.union([z.literal('off'), address]).prefault('127.0.0.1:8081'),
    '127.0.0.1:8081',
    'Where the JSON API, metrics and health checks are served over HTTP; `off` for nowhere',
  ),
  TLS_CERT_FILE: pathSetting(
    path.optional(),
    'none',
    'The certificate of the service with its chain, PEM: both ports then speak TLS alone. Read anew when it changes',
  ),
  TLS_KEY_FILE: pathSetting(path.optional(), 'none', 'The key of that certificate, PEM'),
  TLS_CLIENT_CA_FILE: pathSetting(
    path.optional(),
    'none',
    'The authorities of client certificates, PEM, for mutual TLS: only who has a certificate of theirs is let in',
  ),
  TLS_CLIENT_CERT: setting(
    z.enum(['required', 'optional'], { error: () => 'must be required or optional' }).default('required'),
    'required',
    '`optional`: a client without a certificate is let in too, and needs a token',
  ),
  DATABASE_URL: setting(postgresUrl, 'embedded', 'A PostgreSQL, as postgres://…; without it the embedded engine runs'),
  DATABASE_DIRECT_URL: setting(
    postgresUrl,
    'DATABASE_URL',
    'The same database without a pooler between, for migrations, when DATABASE_URL points to PgBouncer',
  ),
  DATABASE_POOL_SIZE: setting(whole(1, 1000, 10), '10', 'Most connections to PostgreSQL'),
  DATABASE_WAIT_MS: setting(whole(100, 60_000, 5000), '5000', 'How long a call waits for a connection, in ms'),
  DATA_DIR: pathSetting(
    path.default('./data'),
    './data',
    'Where the embedded engine keeps its files; `memory:` keeps nothing',
  ),
  ENCRYPTION_KEY: setting(
    z.string().default(''),
    'none',
    'Encrypts stored API keys; one key or several, separated by commas: the first encrypts, all decrypt. `agentllm key generate` makes one',
  ),
  BOOTSTRAP_TOKEN_FILE: pathSetting(
    path.optional(),
    'none',
    'The first token, for an administrator: created with the text in this file, or written to it where there is none yet. Not used once the store has had a token. `agentllm token generate` makes a text',
  ),
  MIGRATE_ON_START: setting(
    switchable('on'),
    'on',
    '`off`: refuse to start when migrations are pending, instead of applying them',
  ),
  POLL_INTERVAL_MS: setting(
    whole(10, 60_000, 100),
    '100',
    'How often the log is looked at for changes of other replicas, in ms',
  ),
  NOTIFY: setting(
    switchable('on'),
    'on',
    'Whether replicas tell each other of writes by LISTEN and NOTIFY, so that they see them before they look',
  ),
  REFLECTION: setting(
    z.enum(['on', 'authenticated', 'off'], { error: () => 'must be on, authenticated or off' }).default('on'),
    'on',
    'Who may ask what methods there are, by gRPC reflection and `/openapi.json`: `on` everybody, `authenticated` whoever needs no token or has one, `off` nobody',
  ),
  WATCH_RETENTION: setting(
    retention('24h'),
    '24h',
    'How far back a watch can resume: `30s`, `15m`, `24h`, `7d` or `forever`',
  ),
  HISTORY_RETENTION: setting(
    retention('forever'),
    'forever',
    'How long the history and the audit are kept, at least as long as WATCH_RETENTION; older entries are deleted, except the newest of everything that stood then',
  ),
  SHUTDOWN_GRACE_MS: setting(
    whole(0, 600_000, 10_000),
    '10000',
    'How long open calls may take to end at shutdown, in ms',
  ),
  LOG_LEVEL: setting(
    z
      .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
        error: () => 'must be one of fatal, error, warn, info, debug, trace, silent',
      })
      .default('info'),
    'info',
    'fatal, error, warn, info, debug, trace or silent; every call is logged at debug',
  ),
  PROVIDER_ALLOW_CIDRS: setting(
    cidrs,
    'none',
    'Address ranges in which providers may be although they are not public, for example 127.0.0.0/8. With a range, base URLs with http and with host names of the local network are accepted too; their addresses are checked when the service connects',
  ),
  PROVIDER_ALLOW_KEY_VARS: setting(
    keyVariables,
    'none',
    'Which key variables may be sent to providers that you have added, for example MY_LLM_API_KEY. An agent process reads it from its own environment',
  ),
  OPENAI_API_KEY: providerKey('openai'),
  ANTHROPIC_API_KEY: providerKey('claude'),
  DEEPSEEK_API_KEY: providerKey('deepseek'),
  GROK_API_KEY: providerKey('grok'),
  XAI_API_KEY: providerKey('grok, where GROK_API_KEY is not set'),
} satisfies Record<string, Setting>;

/** The variables of the built-in providers: sent to those alone. */
const PROVIDER_KEYS = Object.keys(settings).filter((name) => name.endsWith('_API_KEY'));

export type Settings = { readonly [K in keyof typeof settings]: z.output<(typeof settings)[K]['schema']> } & {
  /** The keys of providers that this environment has and lets be sent, by their variables. */
  readonly providerKeys: ReadonlyMap<string, string>;
};

/** What is wrong with the settings: one line for each mistake. */
export class SettingsError extends StartError {
  override readonly name = 'SettingsError';

  constructor(readonly mistakes: readonly string[]) {
    super(mistakes.join('\n'));
  }
}

/** A variable without the white space around it, such as the line end of a file that it came from. Empty is not set. */
const trimmed = (text: string | undefined): string | undefined => text?.trim() || undefined;

/**
 * Reads the environment; throws a SettingsError that names every mistake. Empty
 * counts as not set. White space around a value is ignored, except in a path.
 */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  const mistakes: string[] = [];
  const read = Object.entries(settings).map(([name, { schema, isPath }]) => {
    const result = schema.safeParse(isPath ? env[name] || undefined : trimmed(env[name]));
    if (!result.success) mistakes.push(`${name} ${messageOf(result.error)}`);
    return [name, result.data];
  });
  if (mistakes.length > 0) throw new SettingsError(mistakes);
  const values = Object.fromEntries(read);
  const together = disagreements(values);
  if (together.length > 0) throw new SettingsError(together);
  const allowed = [...PROVIDER_KEYS, ...((values['PROVIDER_ALLOW_KEY_VARS'] as string[] | undefined) ?? [])];
  const keys = allowed.flatMap((name) => {
    const key = trimmed(env[name]);
    return key === undefined ? [] : [[name, key] as const];
  });
  return Object.freeze({ ...values, providerKeys: new Map(keys) }) as Settings;
}

/** What is wrong with values that are each right. */
function disagreements(values: Record<string, unknown>): string[] {
  const wrong: string[] = [];
  // Watches resume from the log, which the history is.
  if ((values['HISTORY_RETENTION'] as number) < (values['WATCH_RETENTION'] as number))
    wrong.push('HISTORY_RETENTION must be at least as long as WATCH_RETENTION');
  const has = (name: string) => values[name] !== undefined;
  if (has('TLS_CERT_FILE') !== has('TLS_KEY_FILE'))
    wrong.push('TLS_CERT_FILE and TLS_KEY_FILE belong together: the key is that of the certificate');
  else if (has('TLS_CLIENT_CA_FILE') && !has('TLS_CERT_FILE'))
    wrong.push('TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE: only over TLS do clients have certificates');
  if (values['TLS_CLIENT_CERT'] === 'optional' && !has('TLS_CLIENT_CA_FILE'))
    wrong.push('TLS_CLIENT_CERT needs TLS_CLIENT_CA_FILE: without authorities no certificate is asked for');
  return wrong;
}

// A union reports one error for all of its branches; the last branch has the sentence.
function messageOf(error: z.ZodError): string {
  const issue = error.issues[0];
  if (issue?.code === 'invalid_union') return issue.errors.at(-1)?.[0]?.message ?? issue.message;
  return issue?.message ?? 'is invalid';
}

/** Whether only this machine can reach an address. */
export const isLoopback = ({ host }: Address): boolean => host === 'localhost' || isLoopbackAddress(host);

/** Who may ask: everybody, those whom the service lets in, or nobody. */
export type Reflection = 'on' | 'authenticated' | 'off';
