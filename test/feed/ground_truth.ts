import type { Knex } from 'knex';
import type { Item, Watched } from './history.js';

/*
 * The expected deliveries, computed from the log table alone. This implementation is independent of the service: it
 * works on the rows as JSON.
 */

/** An item that a revision changed. */
export interface ChangedItem extends Item {
  /** The agent that the item belongs to; undefined: an item of the catalogue, which every watch receives. */
  readonly agent: { readonly id: number; readonly name: string } | undefined;
}

export interface GroundTruth {
  readonly head: number;
  /** The changed items of every revision in the log. */
  readonly revisions: ReadonlyMap<number, readonly ChangedItem[]>;
  /** The items that a snapshot of a revision must contain. */
  at(revision: number, watched: Watched): Item[];
}

interface LogRow {
  readonly revision: number;
  readonly entity: 'agent' | 'config' | 'provider' | 'model' | 'price' | 'credential';
  readonly entity_id: number;
  readonly before: Row | null;
  readonly after: Row | null;
}

/** The compared fields of the rows of six tables, as JSON. */
interface Row {
  readonly id: number;
  readonly revision: number;
  readonly name: string;
  readonly agent_id: number;
  readonly model_id: number;
  readonly is_active: boolean;
  readonly description: string | null;
  readonly provider: string;
  readonly model_name: string;
  readonly temperature: number | null;
  readonly max_tokens: number | null;
  readonly enabled: boolean;
  readonly priority: number;
  readonly key_id?: string | null;
  readonly credential_id?: number | null;
  readonly display_name: string | null;
  readonly base_url: string;
  readonly context_window_tokens: number | null;
  readonly input_micro_usd_per_million: number | null;
  readonly source: string;
  readonly valid_from: string;
}

export const concerns = ({ all, names, ids }: Watched, { agent }: ChangedItem): boolean =>
  all === true || !agent || (names ?? []).includes(agent.name) || (ids ?? []).includes(agent.id);

export async function readGroundTruth(db: Knex): Promise<GroundTruth> {
  const rows: LogRow[] = await db('config_revisions')
    .select('revision', 'entity', 'entity_id', 'before', 'after')
    .orderBy(['revision', 'position']);
  const [head] = await db('store_state').select('revision');
  return new LogReplay(rows, Number(head?.revision));
}

type Tables = Record<LogRow['entity'], Map<number, Row>>;

class LogReplay implements GroundTruth {
  readonly revisions = new Map<number, ChangedItem[]>();
  /** The values of every key, each with the first revision at which it applies. */
  private readonly values = new Map<string, { revision: number; changed: ChangedItem }[]>();
  private readonly tables: Tables = {
    agent: new Map(),
    config: new Map(),
    provider: new Map(),
    model: new Map(),
    price: new Map(),
    credential: new Map(),
  };
  /** Earlier revisions refer to deleted credentials by their names. */
  private readonly credentialNames = new Map<number, string>();

  constructor(
    rows: readonly LogRow[],
    readonly head: number,
  ) {
    for (let from = 0; from < rows.length; ) {
      let to = from;
      while (rows[to]?.revision === rows[from]?.revision) to++;
      this.apply(rows.slice(from, to));
      from = to;
    }
  }

  at(revision: number, watched: Watched): Item[] {
    const current: ChangedItem[] = [];
    for (const values of this.values.values()) {
      const last = values.findLast((one) => one.revision <= revision)?.changed;
      if (last && last.value !== '') current.push(last);
    }
    const items = current.filter((one) => concerns(watched, one)).map(({ key, value }) => ({ key, value }));
    const agents = current.flatMap(({ agent }) => agent ?? []);
    for (const name of watched.names ?? [])
      if (!agents.some((one) => one.name === name)) items.push({ key: `none ${name}`, value: '' });
    for (const id of watched.ids ?? [])
      if (!agents.some((one) => one.id === id)) items.push({ key: `gone ${id} `, value: '' });
    return items;
  }

  private apply(rows: readonly LogRow[]): void {
    for (const { entity, entity_id, after } of rows) {
      if (after) this.tables[entity].set(entity_id, after);
      else this.tables[entity].delete(entity_id);
      if (entity === 'credential' && after) this.credentialNames.set(entity_id, after.name);
    }
    const changed = new Map<string, ChangedItem>();
    for (const row of rows) for (const one of this.changedBy(row)) changed.set(one.key, one);
    const { revision } = rows[0] as LogRow;
    this.revisions.set(revision, [...changed.values()]);
    for (const one of changed.values()) {
      // A tombstone ends the agent with this id, unless a rename continues it in the same revision.
      const key = one.key.startsWith('gone ') ? `agent ${one.agent?.id}` : one.key;
      if (one.key.startsWith('gone ') && changed.has(key)) continue;
      this.values.set(key, [...(this.values.get(key) ?? []), { revision, changed: one }]);
    }
  }

  private *changedBy({ entity, entity_id, before, after }: LogRow): Generator<ChangedItem> {
    // The API key was re-encrypted, which is not delivered to watchers.
    if (before && after && before.revision === after.revision && before.key_id !== after.key_id) return;
    const row = (after ?? before) as Row;
    if (entity === 'agent') {
      if (before && before.name !== after?.name)
        yield {
          key: `gone ${entity_id} ${before.name}`,
          value: '',
          agent: { id: entity_id, name: before.name },
        };
      yield* this.agent(entity_id);
    } else if (entity === 'config') yield* this.agent(row.agent_id);
    else if (entity === 'provider') {
      const value = after && [after.revision, after.enabled, after.display_name ?? after.name, after.base_url];
      yield item(`provider ${row.name}`, value);
    } else if (entity === 'credential') yield item(`credential ${row.name}`, after && [after.revision, after.provider]);
    else if (entity === 'model') yield this.model(row, after);
    else {
      const model = this.tables.model.get(row.model_id);
      if (model) yield this.model(model, model);
    }
  }

  private *agent(id: number): Generator<ChangedItem> {
    const agent = this.tables.agent.get(id);
    if (!agent) return;
    const configs = [...this.tables.config.values()]
      .filter((config) => config.agent_id === id)
      .sort((a, b) => a.priority - b.priority || a.id - b.id);
    const value = [agent.name, id, agent.name, agent.revision, agent.is_active, agent.description];
    const chain = configs.map((one) => [
      one.id,
      one.revision,
      agent.name,
      one.provider,
      one.model_name,
      one.temperature,
      one.max_tokens,
      one.enabled,
      one.priority,
      (one.key_id ?? null) !== null,
      one.credential_id === undefined || one.credential_id === null
        ? null
        : this.credentialNames.get(one.credential_id),
    ]);
    yield { key: `agent ${id}`, value: JSON.stringify([value, chain]), agent: { id, name: agent.name } };
  }

  private model({ provider, name, id }: Row, after: Row | null): ChangedItem {
    const [price] = [...this.tables.price.values()]
      .filter((one) => one.model_id === id)
      .sort((a, b) => Date.parse(b.valid_from) - Date.parse(a.valid_from) || b.id - a.id);
    const shown = price ? [price.input_micro_usd_per_million ?? -1, price.source] : null;
    return item(`model ${provider}/${name}`, after && [after.revision, after.context_window_tokens ?? null, shown]);
  }
}

const item = (key: string, value: unknown): ChangedItem => ({
  key,
  value: value ? JSON.stringify(value) : '',
  agent: undefined,
});
