import { readFileSync } from 'node:fs';
import { addressProblem, isLocal } from '../client/address.js';
import { streamChannel } from '../client/channel.js';
import { Connection as Channel } from '../client/connection.js';
import { type AgentLLM, type ConnectOptions, connect } from '../client/index.js';
import { type Input, UsageError } from './inputs.js';
import { file, integer, said, word } from './values.js';

const group = 'Connection:';
const DEFAULT_ADDRESS = '127.0.0.1:50051';
export const DEFAULT_TIMEOUT_MS = 10_000;

/** How the service is reached: taken by every command that asks one. */
export const connectionInputs = (timeoutMs: number): readonly Input[] => [
  {
    name: 'address',
    kind: word('host:port'),
    group,
    help: `where the service is; else the environment's AGENTLLM_ADDRESS, else ${DEFAULT_ADDRESS}`,
  },
  {
    name: 'timeout',
    kind: { ...integer, value: 'ms' },
    group,
    help: `how long to wait for an answer (default ${timeoutMs})`,
  },
  {
    name: 'token-file',
    kind: file,
    group,
    help: "file with the token to send; else the environment's AGENTLLM_TOKEN",
  },
  { name: 'tls', kind: said, group, help: 'encrypt the connection; implied by the four below' },
  { name: 'ca', kind: file, group, help: 'certificate authorities to trust, PEM; else those of the system' },
  { name: 'cert', kind: file, group, help: 'certificate of this client, PEM, where the service wants one' },
  { name: 'key', kind: file, group, help: 'key of that certificate, PEM; not an API key' },
  {
    name: 'server-name',
    kind: word('name'),
    group,
    help: "name in the service's certificate, where the address has another",
  },
];

/** A connection, and what to tell a person for whom it fails. */
export interface Connection {
  readonly api: AgentLLM;
  readonly address: string;
  /** How the address was chosen. */
  readonly chosen: string;
  readonly timeoutMs: number;
}

type Local = ReadonlyMap<string, unknown>;

/** An address, and how it was chosen. */
type Chosen = readonly [address: string, chosen: string];
const DEFAULT_PLACE: Chosen = [DEFAULT_ADDRESS, 'the default'];

function addressOf(local: Local, otherwise: Chosen): Chosen {
  const given = local.get('address') as string | undefined;
  const fromEnvironment = process.env['AGENTLLM_ADDRESS'] || undefined;
  const problem = addressProblem(given ?? fromEnvironment ?? otherwise[0]);
  const typed = given === undefined ? `AGENTLLM_ADDRESS ${fromEnvironment}` : `--address ${given}`;
  if (problem) throw UsageError.of([{ typed, description: problem }]);
  if (given !== undefined) return [given, 'from --address'];
  return fromEnvironment === undefined ? otherwise : [fromEnvironment, 'from AGENTLLM_ADDRESS'];
}

/**
 * @param more for one without `--timeout`, its deadline too.
 * @param otherwise where the service is when nobody says so.
 */
export function openConnection(local: Local, more: ConnectOptions = {}, otherwise: Chosen = DEFAULT_PLACE): Connection {
  const { address, chosen, timeoutMs, token, tls } = placeOf(local, otherwise, more.deadlineMs);
  try {
    const api = connect({ ...more, address, deadlineMs: timeoutMs, ...(token && { token }), ...(tls && { tls }) });
    return { api, address, chosen, timeoutMs };
  } catch (error) {
    // Certificates that are none, a token that is none.
    throw new UsageError((error as Error).message);
  }
}

/** A connection for a stream, to the place that `openConnection` has found good. */
export function openStream(local: Local): Channel {
  const { address, timeoutMs, token, tls } = placeOf(local, DEFAULT_PLACE);
  return new Channel(() => streamChannel(address, { tls }), address, token, timeoutMs);
}

function placeOf(local: Local, otherwise: Chosen, deadlineMs = DEFAULT_TIMEOUT_MS) {
  const [address, chosen] = addressOf(local, otherwise);
  const timeoutMs = (local.get('timeout') as number | undefined) ?? deadlineMs;
  if (timeoutMs < 1) throw UsageError.of([{ typed: `--timeout ${timeoutMs}`, description: 'must be at least 1' }]);
  const token = readGiven(local, 'token-file')?.trim() || process.env['AGENTLLM_TOKEN'] || undefined;
  const tls = tlsOf(local);
  if (token && !tls && !isLocal(address)) throw new UsageError(`A token would go to ${address} in clear: give --tls`);
  return { address, chosen, timeoutMs, token, tls };
}

function tlsOf(local: Local): ConnectOptions['tls'] {
  const [ca, cert, key] = ['ca', 'cert', 'key'].map((name) => readGiven(local, name));
  const serverName = local.get('server-name') as string | undefined;
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError('--cert and --key belong together: the key is that of the certificate');
  if (ca ?? cert ?? serverName)
    return { ...(ca && { ca }), ...(cert && key && { cert, key }), ...(serverName && { serverName }) };
  return local.get('tls') === true;
}

function readGiven(local: Local, name: string): string | undefined {
  const path = local.get(name) as string | undefined;
  // What somebody took for the place of an API key is not repeated.
  const typed = name === 'key' ? '--key' : `--${name} ${path}`;
  return path === undefined ? undefined : readNamedFile(typed, path);
}

export function readNamedFile(typed: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'does not exist' : 'cannot be read';
    throw UsageError.of([{ typed, description: why }]);
  }
}
