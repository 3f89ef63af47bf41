import { readFileSync } from 'node:fs';
import { addressProblem, isLocal } from '../../client/address.js';
import { securityOf, streamChannel } from '../../client/channel.js';
import { Connection as Channel } from '../../client/connection.js';
import { type AgentLLM, type ConnectOptions, connect } from '../../client/index.js';
import { variable } from './environment.js';
import { type Input, UsageError } from './inputs.js';
import { decodeText } from './text.js';
import { file, flag, integer, word } from './values.js';

const group = 'Connection:';
const DEFAULT_ADDRESS = '127.0.0.1:50051';
export const DEFAULT_TIMEOUT_MS = 10_000;

/** The options for the connection, which every command that calls a service takes. */
export const connectionInputs = (timeoutMs: number): readonly Input[] => [
  {
    name: 'address',
    kind: word('host:port'),
    group,
    help: `address of the service (default: AGENTLLM_ADDRESS, else ${DEFAULT_ADDRESS})`,
  },
  {
    name: 'timeout',
    kind: { ...integer, value: 'ms' },
    group,
    help: `how long to wait for the response (default ${timeoutMs})`,
  },
  {
    name: 'token-file',
    kind: file,
    group,
    help: 'file with the token to send (default: the token in AGENTLLM_TOKEN)',
  },
  {
    name: 'tls',
    kind: flag,
    group,
    help: 'encrypt the connection; implied by the four options below and their variables',
  },
  {
    name: 'ca',
    kind: file,
    group,
    help: 'PEM file of the trusted certificate authorities (default: AGENTLLM_CA, else those of the system)',
  },
  {
    name: 'cert',
    kind: file,
    group,
    help: 'PEM file of the client certificate, if the service requires one (default: AGENTLLM_CERT)',
  },
  {
    name: 'key',
    kind: file,
    group,
    help: 'PEM file of the private key of that certificate, not an API key (default: AGENTLLM_KEY)',
  },
  {
    name: 'server-name',
    kind: word('name'),
    group,
    help: 'name in the certificate of the service, if it differs from the address',
  },
];

/** A connection, with the data that an error message about it contains. */
export interface Connection {
  readonly api: AgentLLM;
  readonly address: string;
  /** Where the address comes from: `from --address`, `from AGENTLLM_ADDRESS` or `the default`. */
  readonly addressSource: string;
  readonly timeoutMs: number;
  /** Whether the connection is encrypted. */
  readonly secure: boolean;
}

type LocalInputs = ReadonlyMap<string, unknown>;

/** An address, and where it comes from. */
type Endpoint = readonly [address: string, source: string];
const DEFAULT_ENDPOINT: Endpoint = [DEFAULT_ADDRESS, 'the default'];

function addressOf(local: LocalInputs, fallback: Endpoint): Endpoint {
  const fromOption = local.get('address') as string | undefined;
  const fromEnvironment = variable('AGENTLLM_ADDRESS');
  const problem = addressProblem(fromOption ?? fromEnvironment ?? fallback[0]);
  const typed = fromOption === undefined ? `AGENTLLM_ADDRESS ${fromEnvironment}` : `--address ${fromOption}`;
  if (problem) throw UsageError.of([{ typed, description: problem }]);
  if (fromOption !== undefined) return [fromOption, 'from --address'];
  return fromEnvironment === undefined ? fallback : [fromEnvironment, 'from AGENTLLM_ADDRESS'];
}

/**
 * @param more options of the client; its deadline applies without `--timeout`.
 * @param fallback the address that applies without `--address` and AGENTLLM_ADDRESS.
 */
export function openConnection(
  local: LocalInputs,
  more: ConnectOptions = {},
  fallback: Endpoint = DEFAULT_ENDPOINT,
): Connection {
  const { address, addressSource, timeoutMs, token, tls } = targetOf(local, fallback, more.deadlineMs);
  try {
    const api = connect({ ...more, address, deadlineMs: timeoutMs, ...(token && { token }), ...(tls && { tls }) });
    return { api, address, addressSource, timeoutMs, secure: Boolean(tls) };
  } catch (error) {
    // The client rejects a malformed certificate or token.
    throw new UsageError(tlsProblem((error as Error).message));
  }
}

/** The message for an error of OpenSSL about the certificate or its key. */
function tlsProblem(message: string): string {
  if (message.includes('key values mismatch'))
    return '--key does not belong to the certificate of --cert; name the file with its key';
  return /^error:\w+:/.test(message)
    ? `the certificate or its key cannot be used: ${message.split(':').at(-1)}; check the files of --ca, --cert and --key`
    : message;
}

/** A connection for a stream, with the options that `openConnection` has already checked. */
export function openStream(local: LocalInputs): Channel {
  const { address, timeoutMs, token, tls } = targetOf(local, DEFAULT_ENDPOINT);
  return new Channel(() => streamChannel(address, { tls }), address, token, timeoutMs, securityOf({ tls }));
}

function targetOf(local: LocalInputs, fallback: Endpoint, deadlineMs = DEFAULT_TIMEOUT_MS) {
  const [address, addressSource] = addressOf(local, fallback);
  const timeoutMs = (local.get('timeout') as number | undefined) ?? deadlineMs;
  if (timeoutMs < 1) throw UsageError.of([{ typed: `--timeout ${timeoutMs}`, description: 'must be at least 1' }]);
  const token = readOptionFile(local, 'token-file')?.trim() || variable('AGENTLLM_TOKEN');
  const tls = tlsOf(local);
  if (token && !tls && !isLocal(address))
    throw new UsageError(`The token would be sent to ${address} in plaintext: add --tls`);
  return { address, addressSource, timeoutMs, token, tls };
}

function tlsOf(local: LocalInputs): ConnectOptions['tls'] {
  const ca = readOptionFile(local, 'ca') ?? readVariableFile('AGENTLLM_CA');
  const [cert, key] = pairOf(local);
  const serverName = local.get('server-name') as string | undefined;
  if (ca ?? cert ?? serverName)
    return { ...(ca && { ca }), ...(cert && key && { cert, key }), ...(serverName && { serverName }) };
  return local.get('tls') === true;
}

/** The client certificate and its key: both from the command line, or both from the environment. */
function pairOf(local: LocalInputs): readonly [cert?: string, key?: string] {
  const [cert, key] = [readOptionFile(local, 'cert'), readOptionFile(local, 'key')];
  if ((cert === undefined) !== (key === undefined)) throw new UsageError('--cert and --key must be set together');
  if (cert !== undefined) return [cert, key];
  const [envCert, envKey] = [readVariableFile('AGENTLLM_CERT'), readVariableFile('AGENTLLM_KEY')];
  if ((envCert === undefined) !== (envKey === undefined))
    throw new UsageError('AGENTLLM_CERT and AGENTLLM_KEY must be set together');
  return [envCert, envKey];
}

function readOptionFile(local: LocalInputs, name: string): string | undefined {
  const path = local.get(name) as string | undefined;
  // The value of --key is not repeated: it may be an API key, typed by mistake.
  const typed = name === 'key' ? '--key' : `--${name} ${path}`;
  return path === undefined ? undefined : readPem(typed, path, name);
}

function readVariableFile(name: `AGENTLLM_${string}`): string | undefined {
  const path = variable(name);
  const typed = name === 'AGENTLLM_KEY' ? name : `${name} ${path}`;
  return path === undefined ? undefined : readPem(typed, path, name.replace('AGENTLLM_', '').toLowerCase());
}

/** Rejects a file without a certificate: OpenSSL ignores such a file, and then trusts no server. */
function readPem(typed: string, path: string, name: string): string {
  const pem = readNamedFile(typed, path);
  if ((name !== 'ca' && name !== 'cert') || pem.includes('-----BEGIN CERTIFICATE-----')) return pem;
  throw UsageError.of([{ typed, description: 'contains no PEM certificate' }]);
}

export function readNamedFile(typed: string, path: string): string {
  const usageError = (description: string) => UsageError.of([{ typed, description }]);
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw usageError((error as NodeJS.ErrnoException).code === 'ENOENT' ? 'does not exist' : 'cannot be read');
  }
  const text = decodeText(bytes);
  if (text === undefined) throw usageError('must be text in UTF-8 or UTF-16');
  return text;
}
