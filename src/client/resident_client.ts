import { randomUUID } from 'node:crypto';
import { nameProblem, textProblem } from '../domain/text.js';
import { limits } from '../limits.js';
import { maxElements } from '../max_elements.js';
import type { AgentExtension } from './agent_extension.js';
import type { ReservationOptions } from './budgets/budget_leases.js';
import type { AgentLLM, ResidentAgentLLM } from './client.js';
import { asCallError, checkDeadline } from './connection.js';
import type { ResidentOptions } from './options.js';
import { Resident, type ResidentParts } from './resident.js';
import type { ResidentSettings } from './resident_settings.js';
import type { Pin } from './run.js';
import { checkCache } from './snapshot_cache.js';
import { usageSettings } from './usage/usage_options.js';

/** Applies the defaults; throws a TypeError for values that the service would reject. */
export function settingsOf(options: ResidentOptions): ResidentSettings {
  const { agents, clientName = '', clientVersion = '', cache, reservation = {} } = options;
  const { leaseMs = limits.defaultLeaseLifetime * 1000 } = options;
  checkLength('clientName', clientName, limits.clientName);
  checkLength('clientVersion', clientVersion, limits.clientVersion);
  if (cache) checkCache(cache);
  checkLease(leaseMs);
  checkReservation(reservation);
  const usage = usageSettings(options.usage, cache?.path);
  const names = agents === 'all' ? agents : checkAgents(agents);
  return { agents: names, clientName, clientVersion, cache, leaseMs, usage, reservation };
}

function checkLease(ms: number): void {
  const [min, max] = [limits.leaseLifetime.min * 1000, limits.leaseLifetime.max * 1000];
  if (!Number.isInteger(ms) || ms < min || ms > max)
    throw new TypeError(`leaseMs must be a whole number of ${min} to ${max}, not ${String(ms)}`);
}

function checkReservation({ inputTokens = 0, attempts = 1 }: ReservationOptions): void {
  const checks = [
    ['inputTokens', inputTokens, limits.attemptTokens],
    ['attempts', attempts, limits.reservedAttempts],
  ] as const;
  for (const [name, value, { min, max }] of checks)
    if (!Number.isInteger(value) || value < min || value > max)
      throw new TypeError(`reservation.${name} must be a whole number of ${min} to ${max}, not ${String(value)}`);
}

function checkLength(option: string, text: string, most: number): void {
  const problem = textProblem(text, most);
  if (problem) throw new TypeError(`${option} ${problem}`);
}

/** Sorts the names, so that the same agents in any order have the same resume token and the same cache file. */
function checkAgents(agents: readonly string[]): readonly string[] {
  if (!Array.isArray(agents)) throw new TypeError("agents must be a list of names, or 'all'");
  const names = [...new Set<unknown>(agents)].sort() as string[];
  const isWrong = (name: unknown) => typeof name !== 'string' || nameProblem(name, limits.agentName) !== undefined;
  const wrong = names.filter(isWrong);
  if (wrong.length > 0) throw new TypeError(`${JSON.stringify(wrong[0])} in agents is not a valid agent name`);
  if (names.length === 0) throw new TypeError("agents is empty; name at least one, or set 'all'");
  if (names.length > maxElements['agentllm.v1.WatchConfigsRequest.agents'])
    throw new TypeError(
      `agents has ${names.length} names, at most ${maxElements['agentllm.v1.WatchConfigsRequest.agents']} are allowed; set 'all'`,
    );
  return names;
}

interface ClientContext {
  readonly address: string;
  readonly deadlineMs: number;
  readonly extend: AgentExtension | undefined;
}

type ResidentMembers = Omit<ResidentAgentLLM, keyof AgentLLM> & Pick<ResidentAgentLLM, 'ready'>;

/** The members of a resident client in addition to the service methods. */
export function createResidentClient(
  parts: ResidentParts,
  settings: ResidentSettings,
  { address, deadlineMs, extend }: ClientContext,
): ResidentMembers & { close(): Promise<void> } {
  const resident = new Resident(parts, settings, extend);
  return {
    clientId: resident.clientId,
    spool: resident.spool,
    get state() {
      return resident.state;
    },
    get warnings() {
      return [...resident.warnings.latest];
    },
    agent: (name) => resident.agent(name),
    run: ({ pin = 'run', id = randomUUID() } = {}) => resident.run(checkPin(pin), checkRunId(id)),
    on: (event, listener, options) => resident.on(event, listener, options),
    changes: (options) => resident.changes(options),
    ready: async (ms = deadlineMs, options = {}) =>
      resident.ready(
        address,
        asCallError('ready', 'wait', () => checkDeadline(ms)),
        options,
      ),
    close: () => resident.close(),
  };
}

function checkRunId(id: string): string {
  checkLength('id', id, limits.runId);
  return id;
}

function checkPin(pin: Pin): Pin {
  if (pin !== 'run' && pin !== 'turn' && pin !== 'call')
    throw new TypeError(`pin must be run, turn or call, not ${pin}`);
  return pin;
}
