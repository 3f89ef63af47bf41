import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { unique, useService } from '../../support/service.js';
import {
  configsOf,
  GPT4,
  getAgent,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  revision as newest,
  newModel,
  notFound,
  precondition,
  present,
  refused,
  status,
} from './support.js';

/* RollbackRevision reverts a revision completely, or returns every conflict and writes nothing. */

describe.each(['embedded', 'postgres'] as const)('RollbackRevision on %s', (backend) => {
  const service = useService(backend, { ENCRYPTION_KEY: generateKey() });
  const rollback = (revision: bigint, more: object = {}) => service().configs.rollbackRevision({ revision, ...more });
  const conflict = async (call: Promise<unknown>, ...named: string[]) => {
    const error = await precondition(call, 'ROLLBACK_CONFLICT');
    expect(error.violations.map(({ field, description }) => `${field} ${description}`)).toEqual(
      named.map((text) => expect.stringContaining(text)),
    );
    return error;
  };

  /** Two agents with a config, one without, and one bulk change of all three. */
  async function bulk() {
    const one = await newConfig(service(), { ...HAIKU, temperature: 0.3 });
    const two = await newConfig(service(), { ...GPT4, enabled: false });
    const three = await newAgent(service());
    const agents = [{ id: one.agent_id }, { id: two.agent_id }, { id: three.id }];
    const config = { ...GPT4, temperature: 0.9 };
    const { revision, results } = await service().configs.bulkAssignConfig({ agents, config });
    return { one, two, three, revision, results };
  }
  const content = ({ etag: _, revision: __, updated_at: ___, ...rest }: Awaited<ReturnType<typeof getConfig>>) => rest;

  it('reverts a bulk change with the configs that it changed, enabled and created', async () => {
    const { one, two, three, revision } = await bulk();
    const preview = await rollback(revision, { validate_only: true });
    expect(preview.revision).toBe(revision);
    expect(await newest(service())).toBe(revision);
    const response = await rollback(revision, { reason: 'it was wrong' });
    expect(response.revision).toBe(revision + 1n);
    expect(content(await getConfig(service(), one.id))).toEqual(content(one));
    expect(content(await getConfig(service(), two.id))).toEqual(content(two));
    expect(await configsOf(service(), three.id)).toEqual([]);
    const { entries } = await service().configs.listConfigRevisions({ page_size: 3 });
    expect(response.entries.map((entry) => ({ ...entry, created_at: undefined }))).toEqual(
      entries.map((entry) => ({ ...entry, created_at: undefined })),
    );
    expect(preview.entries.map(({ id, action }) => [id, action])).toEqual(
      entries.map(({ id, action }) => [id, action]),
    );
    expect(response.findings.map(({ message }) => message).join()).toContain(`"${three.name}" has no enabled config`);
    // The rollback can itself be rolled back.
    await rollback(response.revision);
    expect((await getConfig(service(), one.id)).model_name).toBe('gpt-4');
  });

  it('creates a deleted agent and its configs with their old ids', async () => {
    const { id, agent_id, agent_name } = await newConfig(service(), HAIKU);
    const second = await newConfig(service(), GPT4, { id: agent_id });
    const before = await getAgent(service(), agent_id);
    const { revision } = await service().agents.deleteAgent({ agent: { id: agent_id }, cascade: true });
    const { entries } = await rollback(revision);
    expect(entries.map(({ kind, action }) => `${kind} ${action}`)).toEqual([
      'RESOURCE_KIND_AGENT CHANGE_ACTION_CREATE',
      'RESOURCE_KIND_CONFIG CHANGE_ACTION_CREATE',
      'RESOURCE_KIND_CONFIG CHANGE_ACTION_CREATE',
    ]);
    expect((await configsOf(service(), agent_id)).map((config) => config.id)).toEqual([id, second.id]);
    const { created_at, name } = await getAgent(service(), agent_id);
    expect([created_at, name]).toEqual([before.created_at, agent_name]);
    expect((await service().configs.getPrimaryConfig({ agent: { id: agent_id } })).config?.id).toBe(id);
  });

  it('reverts the creation and the change of an agent, and a new order', async () => {
    const created = await service().agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    const agent = present(created.agent);
    const changed = await service().agents.updateAgent({
      agent: { id: agent.id, name: unique('other'), version: '2' },
    });
    await conflict(rollback(created.revision), 'was changed again');
    await rollback(changed.revision);
    expect(await getAgent(service(), agent.id)).toMatchObject({ name: agent.name, version: agent.version });
    const first = await newConfig(service(), HAIKU, agent);
    const second = await newConfig(service(), GPT4, agent);
    const config_ids = [second.id, first.id];
    const { revision } = await service().configs.reorderConfigs({ agent: { id: agent.id }, config_ids });
    await rollback(revision);
    expect((await service().configs.getPrimaryConfig({ agent: { id: agent.id } })).config?.id).toBe(first.id);
    const next = await service().agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    await rollback(next.revision);
    await notFound(service().agents.getAgent({ agent: { id: present(next.agent).id } }), 'AGENT_NOT_FOUND');
    // The revision is already rolled back: nothing changes, so there is no new revision.
    const again = await rollback(next.revision);
    expect(again.entries).toEqual([]);
    expect(again.revision).toBe(await newest(service()));
  });

  describe('with conflicts returns all of them and writes nothing', () => {
    it('when configs were changed or deleted later', async () => {
      const { one, two, revision, results } = await bulk();
      await service().configs.updateConfig({ config: { id: one.id, temperature: 0.1 } });
      await service().configs.deleteConfig({ id: two.id });
      const at = await newest(service());
      const error = await conflict(
        rollback(revision),
        `config ${one.id} of "${one.agent_name}" was changed again at revision ${at - 1n}`,
        `config ${two.id} of "${two.agent_name}" was deleted since`,
      );
      expect(error.message).toContain(`Revision ${revision} cannot be rolled back: config ${one.id} of`);
      expect(await newest(service())).toBe(at);
      expect((await getConfig(service(), present(results[2]?.config).id)).temperature).toBe(0.9);
    });

    it('when another agent has the name, or the agent of a config was deleted', async () => {
      const { id, agent_id, agent_name } = await newConfig(service(), HAIKU);
      const removed = await service().configs.deleteConfig({ id });
      const { revision } = await service().agents.deleteAgent({ agent: { id: agent_id } });
      await newAgent(service(), { name: agent_name });
      await conflict(rollback(revision), 'has a name that another agent has now');
      await conflict(rollback(removed.revision), `belongs to agent ${agent_id}, which was deleted since`);
    });

    it('when the created agent has configs, or is reserved', async () => {
      const { agent, revision } = await service().agents.createAgent({
        agent: { name: unique('agent'), agent_type: 'analyst' },
      });
      await newConfig(service(), HAIKU, present(agent));
      await conflict(rollback(revision), 'has 1 configs that were created since');
      const reserved = await service().agents.createAgent({
        agent: { name: unique('agent'), agent_type: 'analyst', is_reserved: true },
      });
      await conflict(rollback(reserved.revision), 'is reserved and cannot be deleted');
    });

    it('when the catalogue no longer has the model', async () => {
      const provider = 'openai';
      const { name: model_name } = await newModel(service(), { provider });
      const { id } = await newConfig(service(), { provider, model_name });
      const { revision } = await service().configs.updateConfig({ config: { id, ...GPT4 } });
      await service().providers.deleteModel({ provider, name: model_name });
      await conflict(rollback(revision), `config.model_name: Invalid model "${model_name}"`);
    });

    it('when the revision changed a resource of another kind', async () => {
      const { revision } = await service().providers.updateProvider({
        provider: { name: 'openai', display_name: 'O' },
      });
      await conflict(rollback(revision), 'is neither an agent, a config nor an experiment');
      await precondition(rollback(1n), 'ROLLBACK_CONFLICT');
    });
  });

  describe('with API keys', () => {
    it('removes an added key, keeps a valid one and returns a conflict for a lost one', async () => {
      const config = await newConfig(service(), GPT4);
      const { id, agent_id } = config;
      const added = await service().configs.updateConfig({ config: { id }, api_key: 'sk-1' });
      const changed = await service().configs.updateConfig({ config: { id, temperature: 1 } });
      const back = await rollback(changed.revision);
      expect((await getConfig(service(), id)).has_api_key_override).toBe(true);
      await rollback(back.revision);
      const { revision } = await service().configs.deleteConfig({ id });
      await conflict(rollback(revision), 'had an API key, which cannot be restored; set without_keys');
      await rollback(revision, { without_keys: true });
      expect(await getConfig(service(), id)).toMatchObject({ agent_id, has_api_key_override: false });
      const key = await service().configs.updateConfig({ config: { id }, api_key: 'sk-2' });
      await rollback(key.revision);
      expect((await getConfig(service(), id)).has_api_key_override).toBe(false);
      await conflict(rollback(added.revision), 'was changed again');
    });

    it('never moves a key to another provider', async () => {
      const { id } = await newConfig(service(), GPT4);
      await service().configs.updateConfig({ config: { id }, api_key: 'sk-1' });
      const { revision } = await service().configs.updateConfig({ config: { id, ...HAIKU }, api_key: 'sk-ant' });
      await conflict(rollback(revision), 'cannot be restored');
      await rollback(revision, { without_keys: true });
      expect(await getConfig(service(), id)).toMatchObject({ ...GPT4, has_api_key_override: false });
    });
  });

  it('writes once for a repeated request_id, and rejects another body and invalid revisions', async () => {
    const { one, revision } = await bulk();
    const request_id = randomUUID();
    const first = await rollback(revision, { request_id });
    expect(await rollback(revision, { request_id })).toEqual(first);
    expect(await newest(service())).toBe(first.revision);
    await refused(rollback(first.revision, { request_id }), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
    await invalid(rollback(0n), 'revision');
    await invalid(rollback(-1n, { reason: 'x'.repeat(501) }), 'revision', 'reason');
    await refused(rollback(first.revision + 10n), status.OUT_OF_RANGE, 'REVISION_IN_FUTURE');
    expect(content(await getConfig(service(), one.id))).toEqual(content(one));
  });
});
