import { isIP } from 'node:net';
import { z } from 'zod';
import { addressList, isLoopback as isLoopbackAddress } from './domain/addresses.js';
import { DatabaseUrlError, parseDatabaseUrl } from './domain/database_url.js';
import { readAllowedVariables, variableProblem } from './domain/key_choice.js';
import { StartError } from './errors.js';

/** The address that a server listens on. */
export interface Address {
  readonly host: string;
  readonly port: number;
  /** The text of the setting. */
  readonly text: string;
}

const whole = (min: number, max: number, defaultValue: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`)
    .default(defaultValue);

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

/**
 * A path is not trimmed, because white space is part of it: trimming could select another directory and create an empty
 * store.
 */
const path = z
  .string()
  .refine(
    (text) => text === text.trim(),
    'begins or ends with white space, such as the carriage return of a file with Windows line endings; remove it',
  );

const switchable = (defaultValue: 'on' | 'off') =>
  z
    .enum(['on', 'off'], { error: () => 'must be on or off' })
    .default(defaultValue)
    .transform((value) => value === 'on');

const seedModel = z
  .string()
  .regex(/^[^/\s]+\/\S.*$/, 'must be provider/model, for example openai/gpt-5.4')
  .optional();

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A retention time in ms; `forever` is infinity. */
const retention = (defaultValue: string) =>
  z
    .string()
    .regex(/^([1-9]\d{0,5}[smhd]|forever)$/, 'must be a time such as 30s, 15m, 24h or 7d, or forever')
    .transform((text) =>
      text === 'forever' ? Number.POSITIVE_INFINITY : Number(text.slice(0, -1)) * (UNITS[text.slice(-1)] as number),
    )
    .prefault(defaultValue);

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

/** A setting and its description, which the README and `agentllm serve --help` print. */
interface Setting {
  readonly schema: z.ZodType;
  readonly defaultText: string;
  readonly description: string;
  readonly isPath: boolean;
}
const setting = <S extends z.ZodType>(schema: S, defaultText: string, description: string) => ({
  schema,
  defaultText,
  description,
  isPath: false,
});
const pathSetting = <S extends z.ZodType>(schema: S, defaultText: string, description: string) => ({
  ...setting(schema, defaultText, description),
  isPath: true,
});
const providerKey = (provider: string) =>
  setting(z.string().optional(), 'none', `The API key of ${provider}; the service uses it only to check configs`);

/** Every setting of the service. The documentation and the tests are derived from this table. */
export const settings = {
  GRPC_ADDRESS: setting(address.prefault('127.0.0.1:50051'), '127.0.0.1:50051', 'Address of the gRPC service'),
  HTTP_ADDRESS: setting(
    z.union([z.literal('off'), address]).prefault('127.0.0.1:8081'),
    '127.0.0.1:8081',
    'Address of the HTTP server for the JSON API, metrics and health checks; `off` disables it',
  ),
  TLS_CERT_FILE: pathSetting(
    path.optional(),
    'none',
    'Certificate of the service with its chain, PEM. If it is set, both ports accept only TLS. The service reloads the file when it changes',
  ),
  TLS_KEY_FILE: pathSetting(path.optional(), 'none', 'Private key of the certificate, PEM'),
  TLS_CLIENT_CA_FILE: pathSetting(
    path.optional(),
    'none',
    'Certificate authorities for client certificates, PEM (mutual TLS). A client needs a certificate that one of them has signed',
  ),
  TLS_CLIENT_CERT: setting(
    z.enum(['required', 'optional'], { error: () => 'must be required or optional' }).default('required'),
    'required',
    '`optional`: a client without a certificate may connect too, and needs a token',
  ),
  DATABASE_URL: setting(
    postgresUrl,
    'embedded',
    'PostgreSQL database, as postgres://…; without it the embedded engine is used',
  ),
  DATABASE_DIRECT_URL: setting(
    postgresUrl,
    'DATABASE_URL',
    'Direct connection to the same database for migrations, if DATABASE_URL points to PgBouncer',
  ),
  DATABASE_POOL_SIZE: setting(whole(1, 1000, 10), '10', 'Maximum number of connections to PostgreSQL'),
  DATABASE_WAIT_MS: setting(whole(100, 60_000, 5000), '5000', 'Maximum time that a call waits for a connection, in ms'),
  DATA_DIR: pathSetting(
    path.default('./data'),
    './data',
    'Directory of the embedded engine; `memory:` stores nothing on disk',
  ),
  ENCRYPTION_KEY: setting(
    z.string().default(''),
    'none',
    'Encryption keys for stored API keys, separated by commas: the first encrypts, all decrypt. `agentllm key generate` generates a key',
  ),
  BOOTSTRAP_TOKEN_FILE: pathSetting(
    path.optional(),
    'none',
    'File with the first token, which has the role of an administrator. If the file is missing or empty, the service generates a token and writes it there. Not used once the store has had a token. `agentllm token generate` generates a token',
  ),
  MIGRATE_ON_START: setting(
    switchable('on'),
    'on',
    '`off`: refuse to start when migrations are pending, instead of applying them',
  ),
  SEED_MODEL: setting(
    seedModel,
    'none',
    'Model of the agents and configs that the first start creates, as provider/model, for example openai/gpt-5.4. Without it, the configs have openai/gpt-4, the default of the original Python system. Not used once they exist',
  ),
  POLL_INTERVAL_MS: setting(
    whole(10, 60_000, 100),
    '100',
    'Interval at which a replica polls for the changes of other replicas, in ms',
  ),
  NOTIFY: setting(
    switchable('on'),
    'on',
    'Whether replicas notify each other of writes with LISTEN and NOTIFY, so that they see them before the next poll',
  ),
  REFLECTION: setting(
    z.enum(['on', 'authenticated', 'off'], { error: () => 'must be on, authenticated or off' }).default('on'),
    'on',
    'Access to gRPC reflection and `/openapi.json`: `on` for every client, `authenticated` for clients that have a token or need none, `off` for no client',
  ),
  WATCH_RETENTION: setting(
    retention('24h'),
    '24h',
    'Period within which a watch can resume: `30s`, `15m`, `24h`, `7d` or `forever`',
  ),
  HISTORY_RETENTION: setting(
    retention('forever'),
    'forever',
    'How long the history and the audit are kept, at least WATCH_RETENTION. Older entries are deleted, except the newest entry of every resource that existed then',
  ),
  USAGE_RETENTION: setting(
    retention('365d'),
    '365d',
    'How long recorded attempts are kept, at least 1d. Attempts are deleted in whole UTC months; their sums are kept permanently',
  ),
  SHUTDOWN_GRACE_MS: setting(
    whole(0, 600_000, 10_000),
    '10000',
    'Maximum time for calls in progress to end at shutdown, in ms',
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
    'Non-public address ranges in which providers are allowed, for example 127.0.0.0/8. If a range is set, base URLs may use http and host names of the local network; the service checks their addresses when it connects',
  ),
  PROVIDER_ALLOW_KEY_VARS: setting(
    keyVariables,
    'none',
    'Key variables that may be sent to providers that you have added, for example MY_LLM_API_KEY. An agent process reads this setting from its environment',
  ),
  OPENAI_API_KEY: providerKey('openai'),
  ANTHROPIC_API_KEY: providerKey('claude'),
  DEEPSEEK_API_KEY: providerKey('deepseek'),
  GROK_API_KEY: providerKey('grok'),
  XAI_API_KEY: providerKey('grok, if GROK_API_KEY is not set'),
} satisfies Record<string, Setting>;

/** The key variables of the built-in providers; each is sent only to its provider. */
const PROVIDER_KEYS = Object.keys(settings).filter((name) => name.endsWith('_API_KEY'));

export type Settings = { readonly [K in keyof typeof settings]: z.output<(typeof settings)[K]['schema']> } & {
  /** The provider keys in the environment that may be sent, by variable. */
  readonly providerKeys: ReadonlyMap<string, string>;
};

/** Invalid settings; the message has one line for each problem. */
export class SettingsError extends StartError {
  override readonly name = 'SettingsError';

  constructor(readonly problems: readonly string[]) {
    super(problems.join('\n'));
  }
}

/**
 * The value without surrounding white space, for example the line end of the file that it comes from; undefined if
 * empty.
 */
const trimmed = (text: string | undefined): string | undefined => text?.trim() || undefined;

/** Reads the environment; throws a SettingsError that names every problem. An empty value counts as not set. */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  const problems: string[] = [];
  const read = Object.entries(settings).map(([name, { schema, isPath }]) => {
    const result = schema.safeParse(isPath ? env[name] || undefined : trimmed(env[name]));
    if (!result.success) problems.push(`${name} ${messageOf(result.error)}`);
    return [name, result.data];
  });
  if (problems.length > 0) throw new SettingsError(problems);
  const values = Object.fromEntries(read);
  const conflicts = conflictsOf(values);
  if (conflicts.length > 0) throw new SettingsError(conflicts);
  const allowed = [...PROVIDER_KEYS, ...((values['PROVIDER_ALLOW_KEY_VARS'] as string[] | undefined) ?? [])];
  const keys = allowed.flatMap((name) => {
    const key = trimmed(env[name]);
    return key === undefined ? [] : [[name, key] as const];
  });
  return Object.freeze({ ...values, providerKeys: new Map(keys) }) as Settings;
}

const DAY_MS = 86_400_000;

/** The conflicts between values that are valid on their own. */
function conflictsOf(values: Record<string, unknown>): string[] {
  const conflicts: string[] = [];
  // Watches resume from the change log, which is also the history.
  if ((values['HISTORY_RETENTION'] as number) < (values['WATCH_RETENTION'] as number))
    conflicts.push('HISTORY_RETENTION must be at least as long as WATCH_RETENTION');
  if ((values['USAGE_RETENTION'] as number) < DAY_MS) conflicts.push('USAGE_RETENTION must be at least 1d');
  const has = (name: string) => values[name] !== undefined;
  if (has('TLS_CERT_FILE') !== has('TLS_KEY_FILE'))
    conflicts.push('TLS_CERT_FILE and TLS_KEY_FILE must be set together');
  else if (has('TLS_CLIENT_CA_FILE') && !has('TLS_CERT_FILE'))
    conflicts.push('TLS_CLIENT_CA_FILE requires TLS_CERT_FILE and TLS_KEY_FILE');
  if (values['TLS_CLIENT_CERT'] === 'optional' && !has('TLS_CLIENT_CA_FILE'))
    conflicts.push('TLS_CLIENT_CERT requires TLS_CLIENT_CA_FILE');
  return conflicts;
}

// A union reports one error for all of its branches; the last branch has the message.
function messageOf(error: z.ZodError): string {
  const issue = error.issues[0];
  if (issue?.code === 'invalid_union') return issue.errors.at(-1)?.[0]?.message ?? issue.message;
  return issue?.message ?? 'is invalid';
}

/** Whether an address is reachable only from this machine. */
export const isLoopback = ({ host }: Address): boolean => host === 'localhost' || isLoopbackAddress(host);

/** The clients that may use reflection: all, those that the service authenticates, or none. */
export type Reflection = 'on' | 'authenticated' | 'off';
