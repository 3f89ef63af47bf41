import { describe, expect, it } from 'vitest';
import { connect } from '../../../src/client/index.js';
import { unique, useService } from '../../support/service.js';
import {
  findingOf,
  GPT4,
  getAgent,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  notFound,
  present,
  reasonsOf,
} from './support.js';

/* An agent without an enabled config uses its default model. A write with that result returns a finding. */

const NO_DEFAULT = { llm_provider: '', llm_model: '' };

describe.each(['embedded', 'postgres'] as const)('the default model of an agent on %s', (backend) => {
  const service = useService(backend);
  const noConfigMessage = (findings: Parameters<typeof findingOf>[0]) =>
    findingOf(findings, 'NO_ENABLED_CONFIG').message;

  describe('a write that leaves an agent without an enabled config', () => {
    it.each([false, true])(
      'returns a finding when it disables the last one, with validate_only %s',
      async (validate_only) => {
        const { id, agent_name } = await newConfig(service(), HAIKU);
        const { findings } = await service().configs.updateConfig({ config: { id, enabled: false }, validate_only });
        expect(noConfigMessage(findings)).toContain(
          `Agent "${agent_name}" has no enabled config; it uses its default model openai/`,
        );
      },
    );

    it.each([false, true])(
      'returns a finding when it deletes the last one, with validate_only %s',
      async (validate_only) => {
        const { id } = await newConfig(service(), HAIKU);
        const { findings } = await service().configs.deleteConfig({ id, validate_only });
        expect(noConfigMessage(findings)).toContain('openai/gpt-4o-mini');
      },
    );

    it('returns a finding when it rolls the config back to a disabled state', async () => {
      const { id, revision } = await newConfig(service(), { ...HAIKU, enabled: false });
      await service().configs.updateConfig({ config: { id, enabled: true } });
      const { findings } = await service().configs.rollbackConfig({ id, to_revision: revision });
      expect(reasonsOf(findings)).toContain('NO_ENABLED_CONFIG');
    });

    it('returns a finding when it creates the agent or changes its default model', async () => {
      const { agent, findings } = await service().agents.createAgent({
        agent: { name: unique('agent'), agent_type: 'analyst' },
      });
      expect(noConfigMessage(findings)).toContain('openai/gpt-4o-mini');
      const changed = await service().agents.updateAgent({ agent: { id: present(agent).id, llm_model: 'gpt-4' } });
      expect(noConfigMessage(changed.findings)).toContain('openai/gpt-4;');
    });
  });

  it('causes no finding while another config is enabled', async () => {
    const { id, agent_id } = await newConfig(service(), HAIKU);
    await newConfig(service(), GPT4, { id: agent_id });
    const { findings } = await service().configs.updateConfig({ config: { id, enabled: false } });
    expect(reasonsOf(findings)).not.toContain('NO_ENABLED_CONFIG');
    const deleted = await service().configs.deleteConfig({ id });
    expect(deleted.findings).toEqual([]);
    const agent = await service().agents.updateAgent({ agent: { id: agent_id, description: 'x' } });
    expect(agent.findings).toEqual([]);
  });

  describe('an agent without a default model', () => {
    it('resolves to NO_ENABLED_CONFIG in service and client, unless it has a config', async () => {
      const { id, name } = await newAgent(service(), NO_DEFAULT);
      expect(await getAgent(service(), id)).toMatchObject(NO_DEFAULT);
      const error = await notFound(service().configs.resolveConfig({ agent: { id } }), 'NO_ENABLED_CONFIG');
      expect(error.message).toBe(
        `Agent "${name}" has no enabled config and no default model; create or enable a config`,
      );
      const down = { agent: { id }, provider_down: ['claude'] };
      await notFound(service().configs.resolveConfig(down), 'NO_ENABLED_CONFIG');
      await notFound(service().configs.getPrimaryConfig({ agent: { id } }), 'NO_ENABLED_CONFIG');
      const created = await service().configs.createConfig({ agent: { id }, config: HAIKU });
      const { resolved } = await service().configs.resolveConfig({ agent: { id } });
      expect(present(resolved).hops.map(({ provider }) => provider)).toEqual(['claude']);
      const { findings, revision } = await service().configs.deleteConfig({ id: present(created.config).id });
      expect(noConfigMessage(findings)).toBe(
        `Agent "${name}" has no enabled config and no default model, so it can call no model; create or enable a config`,
      );
      const pastRequest = { agent: { id }, at_revision: revision };
      await notFound(service().configs.resolveConfig(pastRequest), 'NO_ENABLED_CONFIG');
      const client = connect({ address: `127.0.0.1:${service().port}`, agents: [name] });
      await client.ready();
      expect(() => client.agent(name).resolve()).toThrow(/has no enabled config and no default model/);
      client.close();
    });

    it('results from an update, and gets the default values when the fields are cleared', async () => {
      const { id } = await newAgent(service());
      const { agent } = await service().agents.updateAgent({ agent: { id, ...NO_DEFAULT } });
      expect(agent).toMatchObject(NO_DEFAULT);
      const cleared = await service().agents.updateAgent({ agent: { id }, update_mask: ['llm_provider', 'llm_model'] });
      expect(cleared.agent).toMatchObject({ llm_provider: 'openai', llm_model: 'gpt-4o-mini' });
    });

    it('has both fields empty, and an update of only one of them is rejected', async () => {
      const { id } = await newAgent(service());
      await invalid(service().agents.updateAgent({ agent: { id, llm_provider: '' } }), 'agent.llm_provider');
      await invalid(service().agents.updateAgent({ agent: { id, llm_model: '' } }), 'agent.llm_model');
      const create = { name: unique('agent'), agent_type: 'analyst', llm_model: '' };
      await invalid(service().agents.createAgent({ agent: create }), 'agent.llm_model');
    });
  });
});
