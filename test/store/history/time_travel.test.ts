import { describe, expect, it, onTestFinished } from 'vitest';
import { newProvider } from '../../../src/domain/catalogue.js';
import { stateAt } from '../../../src/store/history/time_travel.js';
import { readRevisions } from '../../../src/store/write/change_log.js';
import { openStore } from '../../support/store.js';

describe('a row that an older version logged', () => {
  it('has the defaults of the columns that are not logged', async () => {
    const { database, store, close } = await openStore({ content: 'seeded' });
    onTestFinished(close);
    const { knex } = database;
    const id = store.state.provider('openai')?.id ?? 0;
    const [entry] = await knex('config_revisions').where({ entity: 'provider', entity_id: id }).orderBy('revision');
    await knex('config_revisions')
      .where({ entity: 'provider', entity_id: id })
      .update({ after: knex.raw(`after - 'parameter_rules' - 'origin'`) });
    const { parameter_rules, origin, enabled } = newProvider();
    const past = await stateAt(knex, store.state.revision, { agents: [], catalogue: true });
    expect(past.provider('openai')).toMatchObject({ parameter_rules, origin, enabled });
    const [revision] = await readRevisions(knex, entry.revision, entry.revision);
    const change = revision?.changes.find((one) => one.entity === 'provider' && one.id === id);
    expect(change?.after).toMatchObject({ parameter_rules, origin });
  });
});
