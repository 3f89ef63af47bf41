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

/* One revision is undone as one, or what is in the way is named and nothing is written. */

describe.each(['embedded', 'postgres'] as const)('RollbackRevision on %s', (backend) => {
  const service = useService(backend, { ENCRYPTION_KEY: generateKey() });
  const undo = (revision: bigint, more: object = {}) => service().configs.rollbackRevision({ revision, ...more });
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
  const plain = ({ etag: _, revision: __, updated_at: ___, ...rest }: Awaited<ReturnType<typeof getConfig>>) => rest;

  it('undoes a bulk change: what it changed, enabled and created', async () => {
    const { one, two, three, revision } = await bulk();
    const dry = await undo(revision, { validate_only: true });
    expect(dry.revision).toBe(revision);
    expect(await newest(service())).toBe(revision);
    const answer = await undo(revision, { reason: 'it was wrong' });
    expect(answer.revision).toBe(revision + 1n);
    expect(plain(await getConfig(service(), one.id))).toEqual(plain(one));
    expect(plain(await getConfig(service(), two.id))).toEqual(plain(two));
    expect(await configsOf(service(), three.id)).toEqual([]);
    const { entries } = await service().configs.listConfigRevisions({ page_size: 3 });
    expect(answer.entries.map((entry) => ({ ...entry, created_at: undefined }))).toEqual(
      entries.map((entry) => ({ ...entry, created_at: undefined })),
    );
    expect(dry.entries.map(({ id, action }) => [id, action])).toEqual(entries.map(({ id, action }) => [id, action]));
    expect(answer.findings.map(({ message }) => message).join()).toContain(`"${three.name}" has no enabled config`);
    // And that can be undone in turn.
    await undo(answer.revision);
    expect((await getConfig(service(), one.id)).model_name).toBe('gpt-4');
  });

  it('brings back an agent that was deleted with its configs, under their ids', async () => {
    const { id, agent_id, agent_name } = await newConfig(service(), HAIKU);
    const second = await newConfig(service(), GPT4, { id: agent_id });
    const before = await getAgent(service(), agent_id);
    const { revision } = await service().agents.deleteAgent({ agent: { id: agent_id }, cascade: true });
    const { entries } = await undo(revision);
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

  it('undoes the creation and the change of an agent, and a new order', async () => {
    const created = await service().agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    const agent = present(created.agent);
    const changed = await service().agents.updateAgent({
      agent: { id: agent.id, name: unique('other'), version: '2' },
    });
    await conflict(undo(created.revision), 'was changed again');
    await undo(changed.revision);
    expect(await getAgent(service(), agent.id)).toMatchObject({ name: agent.name, version: agent.version });
    const first = await newConfig(service(), HAIKU, agent);
    const second = await newConfig(service(), GPT4, agent);
    const config_ids = [second.id, first.id];
    const { revision } = await service().configs.reorderConfigs({ agent: { id: agent.id }, config_ids });
    await undo(revision);
    expect((await service().configs.getPrimaryConfig({ agent: { id: agent.id } })).config?.id).toBe(first.id);
    const next = await service().agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    await undo(next.revision);
    await notFound(service().agents.getAgent({ agent: { id: present(next.agent).id } }), 'AGENT_NOT_FOUND');
    // Undone already: there is nothing to do, and that is no revision.
    const again = await undo(next.revision);
    expect(again.entries).toEqual([]);
    expect(again.revision).toBe(await newest(service()));
  });

  describe('names every conflict and writes nothing', () => {
    it('of configs that were changed or deleted since, and agents with later configs', async () => {
      const { one, two, revision, results } = await bulk();
      await service().configs.updateConfig({ config: { id: one.id, temperature: 0.1 } });
      await service().configs.deleteConfig({ id: two.id });
      const at = await newest(service());
      const error = await conflict(
        undo(revision),
        `config ${one.id} of "${one.agent_name}" was changed again at revision ${at - 1n}`,
        `config ${two.id} of "${two.agent_name}" was deleted since`,
      );
      expect(error.message).toContain(`Revision ${revision} cannot be rolled back: config ${one.id} of`);
      expect(await newest(service())).toBe(at);
      expect((await getConfig(service(), present(results[2]?.config).id)).temperature).toBe(0.9);
    });

    it('of an agent whose name is taken, and of configs whose agent is gone', async () => {
      const { id, agent_id, agent_name } = await newConfig(service(), HAIKU);
      const removed = await service().configs.deleteConfig({ id });
      const { revision } = await service().agents.deleteAgent({ agent: { id: agent_id } });
      await newAgent(service(), { name: agent_name });
      await conflict(undo(revision), 'has a name that another agent has now');
      await conflict(undo(removed.revision), `belongs to agent ${agent_id}, which was deleted since`);
    });

    it('of an agent that has configs by now, or is reserved', async () => {
      const { agent, revision } = await service().agents.createAgent({
        agent: { name: unique('agent'), agent_type: 'analyst' },
      });
      await newConfig(service(), HAIKU, present(agent));
      await conflict(undo(revision), 'has 1 configs that were created since');
      const reserved = await service().agents.createAgent({
        agent: { name: unique('agent'), agent_type: 'analyst', is_reserved: true },
      });
      await conflict(undo(reserved.revision), 'is reserved and cannot be deleted');
    });

    it('of models that the catalogue no longer has', async () => {
      const provider = 'openai';
      const { name: model_name } = await newModel(service(), { provider });
      const { id } = await newConfig(service(), { provider, model_name });
      const { revision } = await service().configs.updateConfig({ config: { id, ...GPT4 } });
      await service().providers.deleteModel({ provider, name: model_name });
      await conflict(undo(revision), `config.model_name: Invalid model "${model_name}"`);
    });

    it('of a revision that changed something else', async () => {
      const { revision } = await service().providers.updateProvider({
        provider: { name: 'openai', display_name: 'O' },
      });
      await conflict(undo(revision), 'is neither an agent nor a config');
      await precondition(undo(1n), 'ROLLBACK_CONFLICT');
    });
  });

  describe('of keys', () => {
    it('a key that the revision added is removed, one that fits stays, one that is lost is a conflict', async () => {
      const config = await newConfig(service(), GPT4);
      const { id, agent_id } = config;
      const added = await service().configs.updateConfig({ config: { id }, api_key: 'sk-1' });
      const changed = await service().configs.updateConfig({ config: { id, temperature: 1 } });
      const back = await undo(changed.revision);
      expect((await getConfig(service(), id)).has_api_key_override).toBe(true);
      await undo(back.revision);
      const { revision } = await service().configs.deleteConfig({ id });
      await conflict(undo(revision), 'had an API key, which cannot be restored; set without_keys');
      await undo(revision, { without_keys: true });
      expect(await getConfig(service(), id)).toMatchObject({ agent_id, has_api_key_override: false });
      const key = await service().configs.updateConfig({ config: { id }, api_key: 'sk-2' });
      await undo(key.revision);
      expect((await getConfig(service(), id)).has_api_key_override).toBe(false);
      await conflict(undo(added.revision), 'was changed again');
    });

    it('a key goes to no other provider', async () => {
      const { id } = await newConfig(service(), GPT4);
      await service().configs.updateConfig({ config: { id }, api_key: 'sk-1' });
      const { revision } = await service().configs.updateConfig({ config: { id, ...HAIKU }, api_key: 'sk-ant' });
      await conflict(undo(revision), 'cannot be restored');
      await undo(revision, { without_keys: true });
      expect(await getConfig(service(), id)).toMatchObject({ ...GPT4, has_api_key_override: false });
    });
  });

  it('is a write like any other: a retry writes once, another body is refused, a bad revision too', async () => {
    const { one, revision } = await bulk();
    const request_id = randomUUID();
    const first = await undo(revision, { request_id });
    expect(await undo(revision, { request_id })).toEqual(first);
    expect(await newest(service())).toBe(first.revision);
    await refused(undo(first.revision, { request_id }), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
    await invalid(undo(0n), 'revision');
    await invalid(undo(-1n, { reason: 'x'.repeat(501) }), 'revision', 'reason');
    await refused(undo(first.revision + 10n), status.OUT_OF_RANGE, 'REVISION_IN_FUTURE');
    expect(plain(await getConfig(service(), one.id))).toEqual(plain(one));
  });
});
