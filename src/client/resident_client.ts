import { nameProblem, textProblem } from '../domain/text.js';
import { limits, maxElements } from '../limits.js';
import type { WatchedResidentAgent } from './agent.js';
import type { Change } from './change.js';
import type { AgentLLM, ConnectOptions } from './connect.js';
import { checkDeadline, refusing } from './connection.js';
import type { ListenOptions } from './events.js';
import { type CacheOptions, checkCache } from './snapshot_cache.js';
import { type ClientEvents, Resident, type ResidentParts, type ResidentSettings } from './resident.js';
import type { Pin, Run } from './run.js';
import type { ClientState } from './state.js';
import type { ClientWarning } from './warning.js';

/** How the service is reached, and what is held of it. */
export interface ResidentOptions extends ConnectOptions {
  /** The agents to hold, 1 to 1000 by name, whether they exist yet or not; or `'all'`, also those to come. */
  readonly agents: readonly string[] | 'all';
  /** What this process is, for people who look at the list of watchers: at most 100 characters. Default: empty. */
  readonly clientName?: string | undefined;
  /** Its version, at most 50 characters. Default: empty. */
  readonly clientVersion?: string | undefined;
  /** Keeps what is held in a file, encrypted. Default: nothing is written. */
  readonly cache?: CacheOptions | undefined;
  /**
   * For how long stored API keys are leased, 1 000 to 3 600 000 ms: so long can they be used while the service is away.
   * Default: 600 000.
   */
  readonly leaseMs?: number | undefined;
}

/**
 * A connection that also holds the configuration of agents in memory. It keeps no process alive by itself, however long
 * its stream stands: who waits for it does, with `ready()` or in a loop over `changes()`, and so do its calls.
 */
export interface ResidentAgentLLM extends AgentLLM {
  /** Names this process to the service, as in the list of watchers: a UUID, made anew by each `connect`. */
  readonly clientId: string;
  /** How far what is held can be trusted, now. */
  readonly state: ClientState;
  /** The last 20 warnings, the oldest first. */
  readonly warnings: readonly ClientWarning[];
  /**
   * One agent out of what is held; the same object for the same name. Throws AgentLLMError, code INVALID_ARGUMENT, for
   * one that is not among `agents`. Whether the store has it shows when it is resolved.
   */
  agent(name: string): WatchedResidentAgent;
  /** Begins a piece of work that keeps one revision. Default: `{ pin: 'run' }`. */
  run(options?: { readonly pin?: Pin | undefined }): Run;
  /**
   * Calls back on `state` (the status has changed), `change` (something that is held is different; by then it can be
   * resolved) and `warning`. What it returns ends it, and so does the signal. A listener that fails becomes a warning.
   */
  on<E extends keyof ClientEvents>(
    event: E,
    listener: (value: ClientEvents[E]) => unknown,
    options?: ListenOptions,
  ): () => void;
  /**
   * The changes from now on, to iterate over, until the client is closed, the signal aborts or the loop is left. A reader
   * who is more than 64 changes behind gets the later ones put together in one, so that being slow costs no memory;
   * `merged` tells how many they are.
   */
  changes(options?: ListenOptions): AsyncIterableIterator<Change>;
  /**
   * Resolves as soon as there is something to resolve from: from the service, or from the file while it is away.
   * Rejects with UNAVAILABLE when there is nothing within the time, and at once with what the service says when it
   * refuses the token or the request. Default: `deadlineMs`.
   */
  ready(deadlineMs?: number, options?: ListenOptions): Promise<void>;
  /**
   * Ends the connection and the stream: calls that run are finished first, the last acknowledgement is sent and the file
   * is written. What was held can still be resolved. `await using` and `Symbol.asyncDispose` wait until it has ended.
   */
  close(): void;
}

/** Options with their defaults; throws a TypeError for what the service would refuse. */
export function settingsOf(options: ResidentOptions): ResidentSettings {
  const { agents, clientName = '', clientVersion = '', cache, leaseMs = limits.defaultLeaseLifetime * 1000 } = options;
  checkLength('clientName', clientName, limits.clientName);
  checkLength('clientVersion', clientVersion, limits.clientVersion);
  if (cache) checkCache(cache);
  checkLease(leaseMs);
  return { agents: agents === 'all' ? agents : checkAgents(agents), clientName, clientVersion, cache, leaseMs };
}

function checkLease(ms: number): void {
  const [min, max] = [limits.leaseLifetime.min * 1000, limits.leaseLifetime.max * 1000];
  if (!Number.isInteger(ms) || ms < min || ms > max)
    throw new TypeError(`leaseMs must be a whole number of ${min} to ${max}, not ${String(ms)}`);
}

function checkLength(option: string, text: string, most: number): void {
  const problem = textProblem(text, most);
  if (problem) throw new TypeError(`${option} ${problem}`);
}

/** In an order of their own: the same agents are the same stream, and the same file. */
function checkAgents(agents: readonly string[]): readonly string[] {
  if (!Array.isArray(agents)) throw new TypeError("agents must be a list of names, or 'all'");
  const names = [...new Set<unknown>(agents)].sort() as string[];
  const isWrong = (name: unknown) => typeof name !== 'string' || nameProblem(name, limits.agentName) !== undefined;
  const wrong = names.filter(isWrong);
  if (wrong.length > 0) throw new TypeError(`${JSON.stringify(wrong[0])} in agents is no name of an agent`);
  if (names.length === 0) throw new TypeError("agents is empty; name some, or 'all'");
  if (names.length > maxElements['agentllm.v1.WatchConfigsRequest.agents'])
    throw new TypeError(
      `agents has ${names.length} names, at most ${maxElements['agentllm.v1.WatchConfigsRequest.agents']} can be; hold 'all'`,
    );
  return names;
}

type Held = Omit<ResidentAgentLLM, keyof AgentLLM> & Pick<ResidentAgentLLM, 'ready'>;

/** What a resident client has beside the calls, and how it ends. */
export function hold(
  parts: ResidentParts,
  settings: ResidentSettings,
  { address, deadlineMs }: { readonly address: string; readonly deadlineMs: number },
): Held & { close(): Promise<void> } {
  const resident = new Resident(parts, settings);
  return {
    clientId: resident.clientId,
    get state() {
      return resident.state;
    },
    get warnings() {
      return [...resident.warnings];
    },
    agent: (name) => resident.agent(name),
    run: ({ pin = 'run' } = {}) => resident.run(checkPin(pin)),
    on: (event, listener, options) => resident.on(event, listener, options),
    changes: (options) => resident.changes(options),
    ready: async (ms = deadlineMs, options = {}) =>
      resident.ready(
        address,
        refusing('ready', 'wait', () => checkDeadline(ms)),
        options,
      ),
    close: () => resident.close(),
  };
}

function checkPin(pin: Pin): Pin {
  if (pin !== 'run' && pin !== 'turn' && pin !== 'call')
    throw new TypeError(`pin must be run, turn or call, not ${pin}`);
  return pin;
}
