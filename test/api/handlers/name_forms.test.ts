import { describe, expect, it } from 'vitest';
import { NameIndex } from '../../../src/domain/name_index.js';
import { useService } from '../../support/service.js';
import { alreadyExists, GPT4, invalid, newAgent, newModel, present } from './support.js';

const NFC = 'café'.normalize('NFC');
const NFD = 'café'.normalize('NFD');

describe('a name in two Unicode forms', () => {
  const service = useService('embedded');

  it('refers to one agent and to one model', async () => {
    const agent = await newAgent(service(), { name: NFD });
    expect(agent.name).toBe(NFC);
    await alreadyExists(service().agents.createAgent({ agent: { name: NFC, agent_type: 'x' } }), 'AGENT_NAME_TAKEN');
    await alreadyExists(service().agents.createAgent({ agent: { name: NFD, agent_type: 'x' } }), 'AGENT_NAME_TAKEN');
    for (const name of [NFC, NFD]) {
      expect((await service().agents.getAgent({ agent: { name } })).agent?.id).toBe(agent.id);
      const { resolved, revision } = await service().configs.resolveConfig({ agent: { name } });
      expect(present(resolved).agent_id).toBe(agent.id);
      const past = await service().configs.resolveConfig({ agent: { name }, at_revision: revision });
      expect(present(past.resolved).agent_id).toBe(agent.id);
    }
    const model = await newModel(service(), { provider: 'openai', name: NFD });
    expect(model.name).toBe(NFC);
    await alreadyExists(
      service().providers.createModel({ model: { provider: 'openai', name: NFC } }),
      'MODEL_NAME_TAKEN',
    );
    const config = { ...GPT4, model_name: NFD };
    await service().configs.createConfig({ agent: { id: agent.id }, config });
    expect((await service().agents.updateAgent({ agent: { id: agent.id, name: NFD } })).agent?.name).toBe(NFC);
    await invalid(service().agents.createAgent({ agent: { name: ` ${NFD}`, agent_type: 'x' } }), 'agent.name');
  });

  it('finds a row that was stored before normalization, and prefers the exact form', () => {
    const index = new NameIndex<number>();
    index.set(NFD, 1);
    expect([index.get(NFD), index.get(NFC), index.get('cafe')]).toEqual([1, 1, undefined]);
    index.set(NFC, 2);
    expect([index.get(NFD), index.get(NFC)]).toEqual([1, 2]);
    index.delete(NFD);
    expect([index.get(NFD), index.get(NFC)]).toEqual([2, 2]);
    index.delete(NFC);
    expect(index.get(NFD)).toBeUndefined();
  });
});
