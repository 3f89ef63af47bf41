import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  CatalogueItem,
  WatchConfigsResponse,
  WatchedAgent,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Credential, Model, Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { Vault } from '../../domain/vault.js';
import type { AgentMaterial, CatalogueMaterial, ChangeEvent } from '../../feed/change_event.js';
import { concerns, concernsAny, type Filter } from '../../feed/filter.js';
import type { MessageEncoder, Snapshot, WatcherIdentity } from '../../feed/watch.js';
import { limits } from '../../limits.js';
import type { Store } from '../../store/store.js';
import { agentMessage, configMessage, modelMessage, providerMessage } from './entities.js';
import { writeResumeToken } from './resume_token.js';

/** Tags of fields that hold a message, `number << 3 | 2`: parts that are encoded once are put together as bytes. */
const SNAPSHOT = (4 << 3) | 2;
const CHANGES = (6 << 3) | 2;
const AGENTS = (1 << 3) | 2;
const CATALOGUE = (2 << 3) | 2;

/** Revisions whose messages are kept, encoded, for watches that come by a moment later. */
const KEPT_ENTRIES = 16;
/** Bytes that are kept of one of them. */
const KEPT_BYTES = 1024 * 1024;

/** What was encoded of a revision. */
interface Kept {
  readonly parts: Map<string, readonly Buffer[]>;
  /** Whole messages, by the keys of their filters. */
  readonly frames: Map<string, readonly Buffer[]>;
  bytes: number;
}

/**
 * The messages of WatchConfigs. An agent is encoded once for as long as its rows live, a message once for all watches
 * of the same agents.
 */
export class WatchMessageEncoder implements MessageEncoder {
  private readonly kept = new Map<ChangeEvent, Kept>();
  /** What the newest streams began with. */
  private begun:
    | {
        readonly catalogue: readonly CatalogueMaterial[];
        readonly revision: number;
        readonly vault: Vault;
        readonly frames: readonly Buffer[];
      }
    | undefined;

  constructor(private readonly store: Store) {}

  started({ client_id }: WatcherIdentity, resumed: boolean, newest: number): Buffer {
    const started = { client_id, resumed, replica: this.store.mark, bookmark_interval_ms: limits.bookmarkPromiseMs };
    return message({ started, revision: BigInt(newest) });
  }

  *snapshot({ revision, nonce, agents, catalogue }: Snapshot, filter: Filter): Iterable<Buffer> {
    const at = { revision: BigInt(revision) };
    const tail = message(at);
    yield message({ ...at, snapshot_begin: { agent_count: agents.filter(({ agent }) => agent).length } });
    // The catalogue first, so that whoever applies part by part can resolve what comes.
    yield* this.catalogueFrames(catalogue, revision);
    for (const part of parts(this.items([], agents))) yield Buffer.concat([framed(SNAPSHOT, part), tail]);
    yield message({ ...at, snapshot_end: {}, resume_token: this.token(revision, nonce, filter) });
  }

  /** About 35 KB that all streams which begin at a revision have in common. */
  private catalogueFrames(catalogue: readonly CatalogueMaterial[], revision: number): readonly Buffer[] {
    const { vault } = this.store.state;
    const { begun } = this;
    if (begun?.catalogue === catalogue && begun.revision === revision && begun.vault === vault) return begun.frames;
    const tail = message({ revision: BigInt(revision) });
    const frames = [...parts(this.items(catalogue, []))].map((part) => Buffer.concat([framed(SNAPSHOT, part), tail]));
    this.begun = { catalogue, revision, vault, frames };
    return frames;
  }

  entry(entry: ChangeEvent, filter: Filter): readonly Buffer[] {
    if (!concernsAny(filter, entry)) return [];
    const kept = this.keptFor(entry);
    const known = kept.frames.get(filter.key);
    if (known) return known;
    const frames = this.framesOf(entry, filter, this.partsOf(entry, filter, kept));
    for (const frame of frames) kept.bytes += frame.length;
    // Of a change that concerns many filters, such as one of the catalogue, each has a token of its own.
    if (kept.bytes <= KEPT_BYTES) kept.frames.set(filter.key, frames);
    return frames;
  }

  bookmark(revision: number, nonce: string, filter: Filter): Buffer {
    return message({ bookmark: {}, revision: BigInt(revision), resume_token: this.token(revision, nonce, filter) });
  }

  /** What of a revision concerns a filter: the same for all filters that the same agents concern. */
  private partsOf(entry: ChangeEvent, filter: Filter, kept: Kept): readonly Buffer[] {
    const agents = entry.agents.filter((moment) => concerns(filter, moment));
    const key = filter.all ? '*' : agents.map(({ id, name }) => `${id} ${name}`).join('\n');
    const known = kept.parts.get(key);
    if (known) return known;
    const made = [...parts(this.items(entry.catalogue, agents))].map((part) => Buffer.from(framed(CHANGES, part)));
    for (const part of made) kept.bytes += part.length;
    if (kept.bytes <= KEPT_BYTES) kept.parts.set(key, made);
    return made;
  }

  private framesOf({ revision, nonce, cause }: ChangeEvent, filter: Filter, all: readonly Buffer[]): Buffer[] {
    return all.map((part, at) => {
      const resume_token = at === all.length - 1 ? this.token(revision, nonce, filter) : '';
      return Buffer.concat([part, message({ revision: BigInt(revision), resume_token, cause })]);
    });
  }

  private keptFor(entry: ChangeEvent): Kept {
    const known = this.kept.get(entry);
    if (known) return known;
    const [oldest] = this.kept.keys();
    if (oldest && this.kept.size >= KEPT_ENTRIES) this.kept.delete(oldest);
    const kept: Kept = { parts: new Map(), frames: new Map(), bytes: 0 };
    this.kept.set(entry, kept);
    return kept;
  }

  private *items(catalogue: readonly CatalogueMaterial[], agents: readonly AgentMaterial[]): Generator<Uint8Array> {
    const { state } = this.store;
    for (const moment of catalogue) yield itemBytes(state, moment);
    for (const moment of agents) yield agentBytes(state, moment);
  }

  private readonly token = (revision: number, nonce: string, filter: Filter): string =>
    writeResumeToken({ identity: this.store.state.identity, revision, nonce, mark: filter.mark });
}

const message = (fields: Parameters<typeof WatchConfigsResponse.fromPartial>[0]): Buffer =>
  bufferOf(WatchConfigsResponse.encode(WatchConfigsResponse.fromPartial(fields)).finish());

/** What grpc-js frames messages with is a method of buffers. */
const bufferOf = ({ buffer, byteOffset, byteLength }: Uint8Array) => Buffer.from(buffer, byteOffset, byteLength);

const framed = (tag: number, bytes: Uint8Array): Uint8Array => new BinaryWriter().uint32(tag).bytes(bytes).finish();

/** Puts whole items together into parts of about `limits.watchMessageBytes`; at least one part. */
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

/** What was encoded of a row, as a field of the message that it is part of, and what else showed in it. */
interface Encoded {
  readonly field: Uint8Array;
  readonly shown: readonly unknown[];
}
const encodings = new WeakMap<object, Encoded>();

/** A field with a row in it, encoded once for as long as the row lives and what else shows in it stands. */
function encodedOnce(row: object, shown: readonly unknown[], tag: number, encode: () => Uint8Array): Uint8Array {
  const known = encodings.get(row);
  if (known?.shown.every((one, at) => one === shown[at])) return known.field;
  const field = framed(tag, encode());
  encodings.set(row, { field, shown });
  return field;
}

/** A field that holds a message, with more at the end of the message. */
function extended(field: Uint8Array, tag: number, more: Uint8Array): Uint8Array {
  const reader = new BinaryReader(field);
  reader.uint32();
  return framed(tag, Buffer.concat([reader.bytes(), more]));
}

const URGENT_AGENT = WatchedAgent.encode(WatchedAgent.fromPartial({ urgent: true })).finish();
const URGENT_ITEM = CatalogueItem.encode(CatalogueItem.fromPartial({ urgent: true })).finish();

function agentBytes(state: State, { id, name, agent, configs, credentials, urgent }: AgentMaterial): Uint8Array {
  if (!agent) return framed(AGENTS, WatchedAgent.encode(WatchedAgent.fromPartial({ name, id, urgent })).finish());
  const field = encodedOnce(agent, [configs, state.identity, state.vault], AGENTS, () =>
    WatchedAgent.encode({
      name,
      agent: { ...agentMessage(state, agent), chain_etag: '' },
      configs: configs.map((config) => ({
        ...configMessage(state, config, name),
        credential_name: credentials.get(config.credential_id ?? 0),
      })),
      urgent: false,
      id,
    }).finish(),
  );
  return urgent ? extended(field, AGENTS, URGENT_AGENT) : field;
}

function itemBytes(state: State, moment: CatalogueMaterial): Uint8Array {
  const { row, kind, name, urgent } = moment;
  if (!row) {
    const item = CatalogueItem.fromPartial({ [`deleted_${kind}`]: name, urgent });
    return framed(CATALOGUE, CatalogueItem.encode(item).finish());
  }
  const price = moment.kind === 'model' ? moment.price : undefined;
  const field = encodedOnce(row, [price, state.identity, state.vault], CATALOGUE, () =>
    CatalogueItem.encode(CatalogueItem.fromPartial({ [kind]: itemMessage(state, moment) })).finish(),
  );
  return urgent ? extended(field, CATALOGUE, URGENT_ITEM) : field;
}

function itemMessage(state: State, moment: CatalogueMaterial): object {
  if (moment.kind === 'provider') return providerMessage(state, moment.row as Provider);
  if (moment.kind === 'model') return modelMessage(state, moment.row as Model, moment.price);
  const { name, provider, revision } = moment.row as Credential;
  const api_key_state = state.vault.stateOf('credential', moment.row as Credential);
  return { name, provider, api_key_state, revision: BigInt(revision) };
}
