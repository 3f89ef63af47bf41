import type { WatchConfigsResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';

/*
 * The messages that clients of WatchConfigs received, in a form that can be compared with the log: each item has a key
 * that identifies it and a text that represents its state.
 */

/** One item of a message. */
export interface Item {
  /** `agent 7`, `gone 7 trader`, `none trader`, `provider openai`, `model openai/gpt-4`, `credential desk`. */
  readonly key: string;
  /** The state of the item; empty when the item does not exist (any more). */
  readonly value: string;
}

/** One message. */
export interface Event {
  readonly kind: 'started' | 'begin' | 'snapshot' | 'end' | 'changes' | 'bookmark';
  readonly revision: number;
  /** Whether the message has a resume token. */
  readonly complete: boolean;
  readonly items: readonly Item[];
  /** Set in a `started` message. */
  readonly resumed?: boolean;
}

export interface Stream {
  /** The revision of the resume token with which the stream was opened. */
  readonly resumedAt: number | undefined;
  readonly events: readonly Event[];
}

/** Which agents a client watches. */
export interface Watched {
  readonly all?: boolean;
  readonly names?: readonly string[];
  readonly ids?: readonly number[];
}

export interface ClientHistory {
  readonly name: string;
  readonly watched: Watched;
  /** The streams of the client in the order in which they were opened. */
  readonly streams: readonly Stream[];
}

/** An acknowledged write, with one of the keys that it must have changed. */
export interface AcknowledgedWrite {
  readonly revision: number;
  readonly key: string;
}

export interface History {
  readonly writes: readonly AcknowledgedWrite[];
  readonly clients: readonly ClientHistory[];
}

const NOTHING: readonly Item[] = [];

export function eventOf(message: WatchConfigsResponse): Event {
  const shared = { revision: Number(message.revision), complete: message.resume_token !== '' };
  if (message.started) return { kind: 'started', ...shared, items: NOTHING, resumed: message.started.resumed };
  if (message.snapshot_begin) return { kind: 'begin', ...shared, items: NOTHING };
  if (message.snapshot_end) return { kind: 'end', ...shared, items: NOTHING };
  if (message.bookmark) return { kind: 'bookmark', ...shared, items: NOTHING };
  if (message.snapshot) return { kind: 'snapshot', ...shared, items: itemsOf(message.snapshot) };
  if (message.changes) return { kind: 'changes', ...shared, items: itemsOf(message.changes) };
  throw new Error('a message without an event');
}

type Changes = NonNullable<WatchConfigsResponse['changes']>;

const itemsOf = ({ agents, catalogue }: Changes): Item[] => [...agents.map(agentItem), ...catalogue.map(catalogueItem)];

function agentItem({ name, id, agent, configs }: Changes['agents'][number]): Item {
  if (!agent) return { key: id === undefined ? `none ${name}` : `gone ${id} ${name}`, value: '' };
  const value = [name, agent.id, agent.name, Number(agent.revision), agent.is_active, agent.description ?? null];
  const chain = configs.map((one) => [
    one.id,
    Number(one.revision),
    one.agent_name,
    one.provider,
    one.model_name,
    one.temperature ?? null,
    one.max_tokens ?? null,
    one.enabled,
    one.priority,
    one.has_api_key_override,
    one.credential_name ?? null,
  ]);
  return { key: `agent ${id}`, value: JSON.stringify([value, chain]) };
}

function catalogueItem(item: Changes['catalogue'][number]): Item {
  const { provider, model, credential, deleted_provider, deleted_model, deleted_credential } = item;
  if (provider)
    return {
      key: `provider ${provider.name}`,
      value: JSON.stringify([Number(provider.revision), provider.enabled, provider.display_name, provider.base_url]),
    };
  if (model) {
    const { price } = model;
    const shown = price && [Number(price.input_micro_usd_per_million ?? -1n), price.source];
    return {
      key: `model ${model.provider}/${model.name}`,
      value: JSON.stringify([Number(model.revision), model.context_window_tokens ?? null, shown ?? null]),
    };
  }
  if (credential)
    return {
      key: `credential ${credential.name}`,
      value: JSON.stringify([Number(credential.revision), credential.provider]),
    };
  if (deleted_provider !== undefined) return { key: `provider ${deleted_provider}`, value: '' };
  if (deleted_model !== undefined) return { key: `model ${deleted_model}`, value: '' };
  return { key: `credential ${deleted_credential}`, value: '' };
}
