import { seedCatalogue } from '../../seeds/catalogue.js';
import { newAgent } from '../../src/domain/agent.js';
import { newModel, newProvider } from '../../src/domain/catalogue.js';
import { configFields, configOutputOnly, newConfig } from '../../src/domain/config.js';
import { defaultWireApi } from '../../src/domain/dialects.js';
import { Draft, type IdSource } from '../../src/domain/draft.js';
import { type Patch, readPatch } from '../../src/domain/patch.js';
import type { Agent, Config, Entity, Model, Provider } from '../../src/domain/rows.js';
import { State } from '../../src/domain/state.js';

export const NOW = new Date('2026-08-01T00:00:00Z');

/** Allocates ids as database sequences do: 1, 2, 3, … for each entity. */
export class Sequences implements IdSource {
  private readonly last = new Map<Entity, number>();

  take(entity: Entity): number {
    const id = (this.last.get(entity) ?? 0) + 1;
    this.last.set(entity, id);
    return id;
  }
}

/** A state with its sequences, changed by plans in the same way as the store changes its state. */
export class World {
  readonly state = new State();
  private readonly ids = new Sequences();

  write<T>(plan: (state: State, draft: Draft) => T): T {
    const draft = new Draft(this.state.revision + 1, NOW, this.ids);
    const result = plan(this.state, draft);
    this.state.apply(draft.revision, `nonce-${draft.revision}`, draft.changes);
    return result;
  }

  provider(fields: Partial<Provider>): Provider {
    const row = { ...newProvider(), ...fields };
    const wire_api = fields.wire_api ?? defaultWireApi(row.dialect);
    return this.write((_, draft) => draft.create('provider', { ...row, wire_api }));
  }

  model(fields: Partial<Model>): Model {
    return this.write((_, draft) => draft.create('model', { ...newModel(), ...fields }));
  }
}

/** Creates a world and runs the seeds in order. */
export function seeded(...plans: readonly ((state: State, draft: Draft) => unknown)[]): World {
  const world = new World();
  for (const plan of plans) world.write(plan);
  return world;
}

/** A world with the built-in catalogue, without shutdown dates: what they cause is tested separately. */
export function seededCatalogue(): World {
  const world = seeded(seedCatalogue);
  world.write((state, draft) => {
    for (const model of [...state.modelsInOrder.after()])
      draft.update('model', model, { ...model, retires_at: null, replaced_by: null });
  });
  return world;
}

export const agentRow = (fields: Partial<Agent> = {}): Agent => ({
  ...newAgent(),
  id: 1,
  name: 'trader',
  agent_type: 'trader',
  ...fields,
});

export const configRow = (fields: Partial<Config> = {}): Config => ({
  ...newConfig(1, 0),
  id: 1,
  provider: 'openai',
  model_name: 'gpt-4',
  ...fields,
});

/** Reads the body and mask of a config request as every config write does. */
export const configPatch = (body: object, mask: readonly string[] = []): Patch =>
  readPatch({ body, mask, specs: configFields, outputOnly: configOutputOnly, at: 'config' });
