import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { expect } from 'vitest';
import {
  type GetConfigResponse,
  UpdateConfigRequest,
  UpdateConfigResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { openDatabase } from '../../src/store/database.js';
import { loadState } from '../../src/store/write/change_log.js';
import { CallError, type Clients, unique } from '../support/service.js';
import { contents, gapsInLog, replay } from '../support/store.js';

/*
 * Records what clients observe during a fault, and checks it against the final content of the store. Every write sets
 * `max_tokens` of one config to a number that no other write of the history uses, which identifies the write.
 */

/** A replica from the view of a client: its name stays the same when its process is restarted. */
export interface Target {
  readonly name: string;
  readonly clients: Clients;
}

export type Outcome =
  | { readonly kind: 'acknowledged'; readonly revision: number; readonly response: string }
  /** The service returned that nothing was written. */
  | { readonly kind: 'rejected'; readonly error: string }
  /** No response arrived, or the service returned that the outcome is unknown. */
  | { readonly kind: 'unknown'; readonly error: string };

export interface Attempt {
  readonly target: string;
  readonly from: number;
  readonly to: number;
  readonly outcome: Outcome;
}

export interface WriteRecord {
  readonly client: string;
  readonly requestId: string;
  readonly config: number;
  readonly value: number;
  readonly attempts: readonly Attempt[];
}

export interface ReadRecord {
  readonly client: string;
  readonly target: string;
  readonly from: number;
  readonly to: number;
  readonly config: number;
  /** The response, or the error. */
  readonly seen: { readonly revision: number; readonly configRevision: number; readonly value: number } | string;
}

export interface History {
  readonly writes: readonly WriteRecord[];
  readonly reads: readonly ReadRecord[];
}

/** An entry of config_revisions for a config. */
export interface LogEntry {
  readonly revision: number;
  readonly config: number;
  readonly before: number | null;
  readonly after: number | null;
  readonly requestId: string | null;
}

/** The content of the store at the end of a test. */
export interface Image {
  readonly head: number;
  /** Every revision in order, with its time. */
  readonly revisions: readonly { readonly revision: number; readonly at: number }[];
  /** Inconsistencies of the log, or between the log and the tables. */
  readonly faults: readonly string[];
  readonly entries: readonly LogEntry[];
  /** `max_tokens` of each config. */
  readonly rows: ReadonlyMap<number, number | null>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients

/** A history that is being recorded. */
export class Recorder implements History {
  readonly writes: (WriteRecord & { readonly attempts: Attempt[] })[] = [];
  readonly reads: ReadRecord[] = [];
  /** Far above the values of seeded configs: 1 000 writes from 1000 on collided with the 2000 of a default config. */
  private last = 1_000_000;

  nextValue(): number {
    this.last += 1;
    return this.last;
  }

  /** The distinct errors of all writes or all reads. */
  errors(kind: 'write' | 'read'): string[] {
    const all =
      kind === 'write'
        ? this.writes.flatMap(({ attempts }) =>
            attempts.map(({ outcome }) => ('error' in outcome ? outcome.error : '')),
          )
        : this.reads.map(({ seen }) => (typeof seen === 'string' ? seen : ''));
    return [...new Set(all)].filter(Boolean).sort();
  }

  get acknowledged(): number {
    return this.writes.filter((write) => acknowledgementsOf(write).length > 0).length;
  }
}

/** A client of one or more replicas that records its writes and reads. */
export class Client {
  constructor(
    readonly name: string,
    private readonly recorder: Recorder,
    private readonly deadlineMs = 10_000,
  ) {}

  /** Prepares a write; each `attempt` sends the same request with the same request_id. */
  write(config: number, extra: { etag?: string; temperature?: number } = {}) {
    const value = this.recorder.nextValue();
    const record = { client: this.name, requestId: randomUUID(), config, value, attempts: [] as Attempt[] };
    this.recorder.writes.push(record);
    const request = { config: { id: config, max_tokens: value, ...extra }, request_id: record.requestId };
    const attempt = async (target: Target): Promise<Outcome> => {
      const from = performance.now();
      const outcome = await target.clients.configs
        .updateConfig(request, { deadlineMs: this.deadlineMs })
        .then(acknowledged, failed);
      record.attempts.push({ target: target.name, from, to: performance.now(), outcome });
      return outcome;
    };
    return {
      value,
      record,
      attempt,
      bytes: UpdateConfigRequest.encode(UpdateConfigRequest.fromPartial(request)).finish(),
    };
  }

  async read(target: Target, config: number, minRevision = 0): Promise<void> {
    const from = performance.now();
    const seen = await target.clients.configs
      .getConfig({ id: config, min_revision: BigInt(minRevision) }, { deadlineMs: this.deadlineMs })
      .then(seenOf, describe);
    this.recorder.reads.push({ client: this.name, target: target.name, from, to: performance.now(), config, seen });
  }
}

function acknowledged(response: UpdateConfigResponse): Outcome {
  const encoded = Buffer.from(UpdateConfigResponse.encode(response).finish()).toString('base64');
  return { kind: 'acknowledged', revision: Number(response.revision), response: encoded };
}

function failed(error: unknown): Outcome {
  const nothingWritten =
    error instanceof CallError && error.reason !== '' && !/^(OUTCOME_UNKNOWN|CANCELLED|INTERNAL)$/.test(error.reason);
  return { kind: nothingWritten ? 'rejected' : 'unknown', error: describe(error) };
}

/** Such as `UNAVAILABLE DATABASE_UNAVAILABLE`; an error without a reason comes from the transport. */
export const describe = (error: unknown): string =>
  error instanceof CallError ? `${status[error.code]} ${error.reason || 'no reason'}` : String(error);

function seenOf({ config, revision }: GetConfigResponse) {
  return { revision: Number(revision), configRevision: Number(config?.revision), value: config?.max_tokens ?? -1 };
}

const RETRYABLE = /^(UNAVAILABLE|ABORTED WRITE_CONFLICT|DEADLINE_EXCEEDED|CANCELLED)/;

export interface LoadOptions {
  readonly clients?: number;
  readonly deadlineMs?: number;
  /** The mean pause between two writes of a client. */
  readonly pauseMs?: number;
  /** How long a client retries one write. */
  readonly retryMs?: number;
}

/** Clients that write and read until they are stopped. */
export interface Load {
  /** Resolves when each client has finished its current write. */
  stop(): Promise<void>;
}

/**
 * Starts clients that write and read the configs repeatedly, mostly on one replica each. Some writes are invalid on
 * purpose, some are not retried, and some are sent again although they were acknowledged.
 */
export function startLoad(
  recorder: Recorder,
  targets: readonly Target[],
  configs: readonly number[],
  { clients = 4, deadlineMs = 10_000, pauseMs = 5, retryMs = 20_000 }: LoadOptions = {},
): Load {
  let running = true;
  const pick = <T>(list: readonly T[], at: number) => list[at % list.length] as T;
  const one = async (index: number) => {
    const client = new Client(`client ${index}`, recorder, deadlineMs);
    for (let turn = 0; running; turn++) {
      const replica = pick(targets, turn % 5 === 4 ? index + 1 : index);
      const config = pick(configs, index + turn);
      const invalid = turn % 14 === 6 ? { etag: 'of-another-time' } : turn % 14 === 13 ? { temperature: 7 } : {};
      const write = client.write(config, invalid);
      const giveUpAt = turn % 5 === 1 ? 0 : performance.now() + retryMs;
      for (let attempts = 0; ; attempts++) {
        const outcome = await write.attempt(
          pick(targets, attempts === 0 ? targets.indexOf(replica) : index + attempts),
        );
        await client.read(replica, config);
        if (outcome.kind === 'acknowledged' || !RETRYABLE.test(outcome.error) || performance.now() > giveUpAt) break;
        await sleep(20 + Math.random() * 30);
      }
      if (turn % 6 === 2 && acknowledgementsOf(write.record).length > 0)
        await write.attempt(pick(targets, index + turn));
      await sleep(pauseMs * (0.5 + Math.random()));
    }
  };
  const all = Promise.all(Array.from({ length: clients }, (_, index) => one(index)));
  return {
    stop: async () => {
      running = false;
      await all;
    },
  };
}

/** Creates the given number of agents with one config each; returns the ids of the configs. */
export async function makeConfigs({ clients }: Target, count: number): Promise<number[]> {
  const ids: number[] = [];
  for (let n = 0; n < count; n++) {
    const { agent } = await clients.agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    // A model without a known output limit, so that every value of max_tokens is valid.
    const config = { provider: 'openai', model_name: 'without-limits' };
    const request = { agent: { id: agent?.id as number }, config, allow_unknown_model: true };
    ids.push((await clients.configs.createConfig(request)).config?.id as number);
  }
  return ids;
}

// ---------------------------------------------------------------------------------------------------------------------
// The store

/** Reads the content of a store; no process may have an embedded store open. */
export async function readImage(where: { url: string } | { dataDir: string }): Promise<Image> {
  const options = {
    url: undefined,
    dataDir: 'memory:',
    ...where,
    poolSize: 2,
    acquireTimeoutMs: 10_000,
    notify: false,
  };
  const database = await openDatabase(options);
  try {
    const rows: LogRow[] = await database.knex('config_revisions').orderBy(['revision', 'position']);
    const configs: { id: number; max_tokens: number | null }[] = await database.knex('agent_llm_configs');
    const [state] = await database.knex('store_state').select('revision');
    const faults = await gapsInLog(database);
    const [log, tables] = [contents(await replay(database)), contents(await loadState(database.knex))];
    for (const part of Object.keys(log) as (keyof typeof log)[])
      if (!equal(log[part], tables[part])) faults.push(`log and tables differ in ${part}`);
    return {
      head: state.revision,
      revisions: rows
        .filter(({ position }) => position === 0)
        .map((row) => ({ revision: row.revision, at: +row.created_at })),
      faults,
      entries: rows.filter(({ entity }) => entity === 'config').map(entryOf),
      rows: new Map(configs.map(({ id, max_tokens }) => [id, max_tokens])),
    };
  } finally {
    await database.close();
  }
}

/** Equality as in `toEqual`, for which an absent field equals an undefined one. */
function equal(one: unknown, other: unknown): boolean {
  try {
    expect(one).toEqual(other);
    return true;
  } catch {
    return false;
  }
}

interface LogRow {
  readonly revision: number;
  readonly position: number;
  readonly entity: string;
  readonly entity_id: number;
  readonly before: { max_tokens?: number | null } | null;
  readonly after: { max_tokens?: number | null } | null;
  readonly request_id: string | null;
  readonly created_at: Date;
}

const entryOf = (row: LogRow): LogEntry => ({
  revision: row.revision,
  config: row.entity_id,
  before: row.before?.max_tokens ?? null,
  after: row.after?.max_tokens ?? null,
  requestId: row.request_id,
});

// ---------------------------------------------------------------------------------------------------------------------
// The promises

type Validator = (history: History, image: Image) => string[];

/** Each promise with its validator, which returns the violations. */
export const promises = {
  'No acknowledged write is lost': lostWrites,
  'No rejected write becomes visible': visibleRejections,
  'Revisions are gapless and in commit order': disorder,
  'One request_id causes one write': duplicates,
  'A caller on one replica reads its own writes': staleReads,
  'A read returns the configuration at its revision': wrongReads,
} satisfies Record<string, Validator>;

/** Throws with the broken promise and its violations. */
export function validate(history: History, image: Image): void {
  for (const [promise, find] of Object.entries(promises)) {
    const broken = find(history, image);
    if (broken.length === 0) continue;
    const more = broken.length > 5 ? `\n  and ${broken.length - 5} more` : '';
    throw new Error(`${promise}:\n  ${broken.slice(0, 5).join('\n  ')}${more}`);
  }
}

const acknowledgementsOf = (write: WriteRecord) =>
  write.attempts.flatMap(({ outcome, ...attempt }) =>
    outcome.kind === 'acknowledged' ? [{ ...attempt, ...outcome }] : [],
  );
const nameOf = (write: WriteRecord) => `${write.client}'s ${write.value} for config ${write.config}`;

function lostWrites({ writes }: History, { entries, rows }: Image): string[] {
  const lost = writes.flatMap((write) =>
    acknowledgementsOf(write)
      .filter(
        ({ revision }) =>
          !entries.some(
            (entry) => entry.revision === revision && entry.config === write.config && entry.after === write.value,
          ),
      )
      .map(({ revision }) => `${nameOf(write)}, acknowledged as revision ${revision}, is not in the log there`),
  );
  const last = new Map(entries.map((entry) => [entry.config, entry.after]));
  const reverted = [...last].filter(([config, value]) => (rows.get(config) ?? null) !== value);
  return [
    ...lost,
    ...reverted.map(([config, value]) => `config ${config} holds ${rows.get(config)}, its last write was ${value}`),
  ];
}

function visibleRejections({ writes, reads }: History, { entries, rows }: Image): string[] {
  const rejected = writes.filter(({ attempts }) => attempts.every(({ outcome }) => outcome.kind === 'rejected'));
  const seen = new Map<number, string>();
  for (const read of reads) if (typeof read.seen !== 'string') seen.set(read.seen.value, `read on ${read.target}`);
  for (const entry of entries) if (entry.after !== null) seen.set(entry.after, `in the log at ${entry.revision}`);
  for (const [config, value] of rows) if (value !== null) seen.set(value, `in the row of config ${config}`);
  return rejected
    .filter(({ value }) => seen.has(value))
    .map((write) => {
      const { outcome } = write.attempts.at(-1) as Attempt;
      return `${nameOf(write)}, rejected with ${'error' in outcome ? outcome.error : ''}, is ${seen.get(write.value)}`;
    });
}

function disorder({ writes }: History, { head, revisions, faults, entries }: Image): string[] {
  const broken = [...faults];
  revisions.forEach(({ revision, at }, index) => {
    if (revision !== index + 1) broken.push(`revision ${revision} is at position ${index + 1}`);
    const before = revisions[index - 1];
    if (before && before.at > at) broken.push(`revision ${revision} is older than ${before.revision}`);
  });
  if (head !== revisions.length) broken.push(`the head is ${head}, and there are ${revisions.length} revisions`);
  const last = new Map<number, number | null>();
  for (const { revision, config, before, after } of entries) {
    const expected = last.get(config) ?? null;
    if (before !== expected)
      broken.push(`revision ${revision} changed ${before} of config ${config}, instead of ${expected}`);
    last.set(config, after);
  }
  // A write that was started after the acknowledgement of another has a higher revision.
  const acknowledgements = writes
    .flatMap((write) => acknowledgementsOf(write).map(({ revision, to }) => ({ write, revision, to })))
    .sort((a, b) => a.to - b.to);
  const started = writes
    .flatMap((write) =>
      acknowledgementsOf(write)
        .slice(0, 1)
        .map(({ revision }) => ({ write, revision, from: write.attempts[0]?.from ?? 0 })),
    )
    .sort((a, b) => a.from - b.from);
  let newest: (typeof acknowledgements)[number] | undefined;
  let at = 0;
  for (const { write, revision, from } of started) {
    for (let next = acknowledgements[at]; next && next.to < from; next = acknowledgements[++at])
      if (!newest || next.revision > newest.revision) newest = next;
    if (newest && newest.revision >= revision)
      broken.push(`${nameOf(write)} got ${revision}, started after ${nameOf(newest.write)} had ${newest.revision}`);
  }
  return broken;
}

function duplicates({ writes }: History, { entries }: Image): string[] {
  const entered = new Map<string, number[]>();
  for (const { requestId, revision } of entries)
    if (requestId !== null) entered.set(requestId, [...(entered.get(requestId) ?? []), revision]);
  return writes.flatMap((write) => {
    const revisions = entered.get(write.requestId) ?? [];
    const responses = new Set(acknowledgementsOf(write).map(({ response }) => response));
    return [
      ...(revisions.length > 1
        ? [`${nameOf(write)} was written ${revisions.length} times: ${revisions.join(', ')}`]
        : []),
      ...(responses.size > 1 ? [`${nameOf(write)} received ${responses.size} different responses`] : []),
    ];
  });
}

function staleReads({ writes, reads }: History, _: Image): string[] {
  const broken: string[] = [];
  const known = new Map<string, { to: number; revision: number; what: string }[]>();
  const addKnown = (client: string, target: string, to: number, revision: number, what: string) => {
    const key = `${client} on ${target}`;
    known.set(key, [...(known.get(key) ?? []), { to, revision, what }]);
  };
  for (const write of writes)
    for (const { target, to, revision } of acknowledgementsOf(write))
      addKnown(write.client, target, to, revision, `the response to ${nameOf(write)}`);
  for (const { client, target, to, seen } of reads)
    if (typeof seen !== 'string') addKnown(client, target, to, seen.revision, 'an earlier read');
  for (const { client, target, from, seen } of reads) {
    if (typeof seen === 'string') continue;
    const newer = known.get(`${client} on ${target}`)?.find((one) => one.to <= from && one.revision > seen.revision);
    if (newer)
      broken.push(`${client} read revision ${seen.revision} on ${target} after ${newer.what} of ${newer.revision}`);
  }
  return broken;
}

function wrongReads({ reads }: History, { entries }: Image): string[] {
  const ofConfig = new Map<number, LogEntry[]>();
  for (const entry of entries) ofConfig.set(entry.config, [...(ofConfig.get(entry.config) ?? []), entry]);
  return reads.flatMap(({ client, target, config, seen }) => {
    if (typeof seen === 'string') return [];
    const expected = ofConfig.get(config)?.findLast(({ revision }) => revision <= seen.revision);
    if (expected && expected.revision === seen.configRevision && (expected.after ?? -1) === seen.value) return [];
    return [
      `${client} saw ${seen.value} in config ${config} at ${seen.revision} on ${target}, the log has ${expected?.after}`,
    ];
  });
}
