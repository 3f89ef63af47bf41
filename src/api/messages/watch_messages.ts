import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  CatalogueItem,
  WatchConfigsResponse,
  WatchedAgent,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { EncryptionState } from '../../domain/encryption_state.js';
import type { Agent, Budget, Credential, Model, Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { BudgetStatus } from '../../feed/budget_monitor.js';
import type { AgentMaterial, CatalogueMaterial, ChangeEvent } from '../../feed/change_event.js';
import { concerns, concernsAny, type Filter } from '../../feed/filter.js';
import type { MessageEncoder, Snapshot, WatcherIdentity } from '../../feed/watch.js';
import { limits } from '../../limits.js';
import type { Store } from '../../store/store.js';
import { budgetStateMessage } from './budgets.js';
import { EncodeOnce } from './encode_once.js';
import { agentMessage, budgetMessage, configMessage, modelMessage, providerMessage } from './entities.js';
import { experimentMessage } from './experiments.js';
import { writeResumeToken } from './resume_token.js';

/** Tags of message fields, `number << 3 | 2`: messages are assembled from parts that are encoded once. */
const SNAPSHOT = (4 << 3) | 2;
const CHANGES = (6 << 3) | 2;
const AGENTS = (1 << 3) | 2;
const CATALOGUE = (2 << 3) | 2;

/** The number of revisions whose encoded messages are cached for watches that lag slightly. */
const CACHED_EVENTS = 16;
/** Cached bytes of one revision. */
const CACHED_BYTES = 1024 * 1024;

/** The encoded messages of a revision. */
interface CachedEvent {
  readonly parts: Map<string, readonly Buffer[]>;
  /** Whole messages, by the keys of their filters. */
  readonly frames: Map<string, readonly Buffer[]>;
  bytes: number;
}

/**
 * Encodes the messages of WatchConfigs. An agent is encoded once while its rows do not change, and a message once for
 * all watches of the same agents.
 */
export class WatchMessageEncoder implements MessageEncoder {
  private readonly cache = new Map<ChangeEvent, CachedEvent>();
  /** The catalogue part of the last snapshot. */
  private lastCatalogue:
    | {
        readonly catalogue: readonly CatalogueMaterial[];
        readonly revision: number;
        readonly encryption: EncryptionState;
        readonly frames: readonly Buffer[];
      }
    | undefined;

  constructor(private readonly store: Store) {}

  started({ client_id }: WatcherIdentity, resumed: boolean, newest: number): Buffer {
    const started = {
      client_id,
      resumed,
      replica: this.store.replicaId,
      bookmark_interval_ms: limits.bookmarkPromiseMs,
    };
    return message({ started, revision: BigInt(newest) });
  }

  *snapshot({ revision, nonce, agents, catalogue }: Snapshot, filter: Filter): Iterable<Buffer> {
    const at = { revision: BigInt(revision) };
    const revisionField = message(at);
    yield message({ ...at, snapshot_begin: { agent_count: agents.filter(({ agent }) => agent).length } });
    // The catalogue comes first, so that a client that applies the parts one by one can resolve the agents.
    yield* this.catalogueFrames(catalogue, revision);
    for (const part of parts(this.items([], agents))) yield Buffer.concat([framed(SNAPSHOT, part), revisionField]);
    yield message({ ...at, snapshot_end: {}, resume_token: this.token(revision, nonce, filter) });
  }

  /** The catalogue messages, about 35 KB, which all snapshots at a revision share. */
  private catalogueFrames(catalogue: readonly CatalogueMaterial[], revision: number): readonly Buffer[] {
    const { encryption } = this.store.state;
    const { lastCatalogue } = this;
    if (
      lastCatalogue?.catalogue === catalogue &&
      lastCatalogue.revision === revision &&
      lastCatalogue.encryption === encryption
    )
      return lastCatalogue.frames;
    const revisionField = message({ revision: BigInt(revision) });
    const frames = [...parts(this.items(catalogue, []))].map((part) =>
      Buffer.concat([framed(SNAPSHOT, part), revisionField]),
    );
    this.lastCatalogue = { catalogue, revision, encryption, frames };
    return frames;
  }

  changes(event: ChangeEvent, filter: Filter): readonly Buffer[] {
    if (!concernsAny(filter, event)) return [];
    const cached = this.cachedEvent(event);
    const existing = cached.frames.get(filter.key);
    if (existing) return existing;
    const frames = this.framesOf(event, filter, this.partsOf(event, filter, cached));
    for (const frame of frames) cached.bytes += frame.length;
    // A change that concerns many filters, such as a catalogue change, has a separate message for each filter, because
    // each filter has its own resume token. So the cached bytes are limited.
    if (cached.bytes <= CACHED_BYTES) cached.frames.set(filter.key, frames);
    return frames;
  }

  bookmark(revision: number, nonce: string, filter: Filter): Buffer {
    return message({ bookmark: {}, revision: BigInt(revision), resume_token: this.token(revision, nonce, filter) });
  }

  budgetStates(states: readonly BudgetStatus[], complete: boolean): Buffer {
    const budget_states = { states: states.map(budgetStateMessage), complete };
    return message({ budget_states, revision: BigInt(this.store.state.revision) });
  }

  /** The parts of a revision that concern a filter; shared by all filters that match the same agents. */
  private partsOf(event: ChangeEvent, filter: Filter, cached: CachedEvent): readonly Buffer[] {
    const agents = event.agents.filter((material) => concerns(filter, material));
    const key = filter.all ? '*' : agents.map(({ id, name }) => `${id} ${name}`).join('\n');
    const existing = cached.parts.get(key);
    if (existing) return existing;
    const encoded = [...parts(this.items(event.catalogue, agents))].map((part) => Buffer.from(framed(CHANGES, part)));
    for (const part of encoded) cached.bytes += part.length;
    if (cached.bytes <= CACHED_BYTES) cached.parts.set(key, encoded);
    return encoded;
  }

  private framesOf({ revision, nonce, cause }: ChangeEvent, filter: Filter, all: readonly Buffer[]): Buffer[] {
    return all.map((part, at) => {
      const resume_token = at === all.length - 1 ? this.token(revision, nonce, filter) : '';
      return Buffer.concat([part, message({ revision: BigInt(revision), resume_token, cause })]);
    });
  }

  private cachedEvent(event: ChangeEvent): CachedEvent {
    const existing = this.cache.get(event);
    if (existing) return existing;
    const [oldest] = this.cache.keys();
    if (oldest && this.cache.size >= CACHED_EVENTS) this.cache.delete(oldest);
    const cached: CachedEvent = { parts: new Map(), frames: new Map(), bytes: 0 };
    this.cache.set(event, cached);
    return cached;
  }

  private *items(catalogue: readonly CatalogueMaterial[], agents: readonly AgentMaterial[]): Generator<Uint8Array> {
    const { state } = this.store;
    for (const material of catalogue) yield itemBytes(state, material);
    for (const material of agents) yield agentBytes(state, material);
  }

  private readonly token = (revision: number, nonce: string, filter: Filter): string =>
    writeResumeToken({ identity: this.store.state.identity, revision, nonce, hash: filter.hash });
}

const message = (fields: Parameters<typeof WatchConfigsResponse.fromPartial>[0]): Buffer =>
  bufferOf(WatchConfigsResponse.encode(WatchConfigsResponse.fromPartial(fields)).finish());

/** Converts bytes to a Buffer, which grpc-js needs to frame a message. */
const bufferOf = ({ buffer, byteOffset, byteLength }: Uint8Array) => Buffer.from(buffer, byteOffset, byteLength);

const framed = (tag: number, bytes: Uint8Array): Uint8Array => new BinaryWriter().uint32(tag).bytes(bytes).finish();

/** Combines whole items into parts of about `limits.watchMessageBytes`; yields at least one part. */
function* parts(items: Iterable<Uint8Array>): Generator<Uint8Array> {
  let part: Uint8Array[] = [];
  let size = 0;
  for (const item of items) {
    if (size > 0 && size + item.length > limits.watchMessageBytes) {
      yield Buffer.concat(part);
      part = [];
      size = 0;
    }
    part.push(item);
    size += item.length;
  }
  yield Buffer.concat(part);
}

/** A message field with bytes appended to its message. */
function extended(field: Uint8Array, tag: number, more: Uint8Array): Uint8Array {
  const reader = new BinaryReader(field);
  reader.uint32();
  return framed(tag, Buffer.concat([reader.bytes(), more]));
}

const URGENT_AGENT = WatchedAgent.encode(WatchedAgent.fromPartial({ urgent: true })).finish();
const URGENT_ITEM = CatalogueItem.encode(CatalogueItem.fromPartial({ urgent: true })).finish();

/** Agents with their configurations, as fields of the message. */
const agentFields = new EncodeOnce<Agent, AgentMaterial>({
  encode: (state, agent, { id, name, configs, credentials, budgets, experiments }) => {
    const watched = WatchedAgent.encode({
      name,
      agent: { ...agentMessage(state, agent), chain_etag: '' },
      configs: configs.map((config) => ({
        ...configMessage(state, config, name),
        credential_name: credentials.get(config.credential_id ?? 0),
      })),
      urgent: false,
      id,
      budgets: budgets.map((budget) => budgetMessage(state, budget)),
      experiments: experiments.map((experiment) => experimentMessage(state, experiment, name)),
    });
    return framed(AGENTS, watched.finish());
  },
  inputs: [(_, { configs }) => configs, (_, { budgets }) => budgets, (_, { experiments }) => experiments],
});

function agentBytes(state: State, material: AgentMaterial): Uint8Array {
  const { id, name, agent, urgent } = material;
  if (!agent) return framed(AGENTS, WatchedAgent.encode(WatchedAgent.fromPartial({ name, id, urgent })).finish());
  const field = agentFields.get(state, agent, material);
  return urgent ? extended(field, AGENTS, URGENT_AGENT) : field;
}

/** Rows of the catalogue, as fields of the message. */
const itemFields = new EncodeOnce<Provider | Model | Credential | Budget, CatalogueMaterial>({
  encode: (state, _, item) => {
    const fields = CatalogueItem.fromPartial({ [item.kind]: itemMessage(state, item) });
    return framed(CATALOGUE, CatalogueItem.encode(fields).finish());
  },
  inputs: [(_, item) => priceOf(item)],
});

const priceOf = (item: CatalogueMaterial) => (item.kind === 'model' ? item.price : undefined);

function itemBytes(state: State, material: CatalogueMaterial): Uint8Array {
  const { row, kind, name, urgent } = material;
  if (!row) {
    const item = CatalogueItem.fromPartial({ [`deleted_${kind}`]: name, urgent });
    return framed(CATALOGUE, CatalogueItem.encode(item).finish());
  }
  const field = itemFields.get(state, row, material);
  return urgent ? extended(field, CATALOGUE, URGENT_ITEM) : field;
}

function itemMessage(state: State, material: CatalogueMaterial): object {
  if (material.kind === 'provider') return providerMessage(state, material.row as Provider);
  if (material.kind === 'model') return modelMessage(state, material.row as Model, material.price);
  if (material.kind === 'budget') return budgetMessage(state, material.row as Budget);
  const { name, provider, revision } = material.row as Credential;
  const api_key_state = state.encryption.stateOf('credential', material.row as Credential);
  return { name, provider, api_key_state, revision: BigInt(revision) };
}
