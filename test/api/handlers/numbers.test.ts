import { describe, expect, it } from 'vitest';
import { withLimits } from '../../feed/support.js';
import { errorOf, send } from '../../http/support.js';
import { connect, failure, useService } from '../../support/service.js';
import { present } from './support.js';

const agent = { name: 'trader' };
const LARGEST = 2n ** 63n - 1n;

describe('a number at the limit of its range', () => {
  const service = useService('embedded', {}, [
    { name: 'admin', role: 'ROLE_ADMIN' },
    { name: 'agent', role: 'ROLE_AGENT', all_agents: true },
  ]);

  it('is returned exactly in the error when it is the largest min_revision', async () => {
    withLimits({ maxCallMs: 500 });
    const error = await failure(service().agents.getAgent({ agent, min_revision: LARGEST }));
    expect(error.metadata['wanted']).toBe(String(LARGEST));
    const list = await failure(service().configs.listConfigs({ min_revision: LARGEST - 1n }));
    expect(list.metadata['wanted']).toBe(String(LARGEST - 1n));
  });

  it('is rejected when min_revision or page_size is negative or at_revision is 0', async () => {
    const { agents, configs } = service();
    for (const [call, field, description] of [
      [agents.getAgent({ agent, min_revision: -1n }), 'min_revision', 'must be at least 0, not -1'],
      [configs.listConfigs({ min_revision: -LARGEST }), 'min_revision', `must be at least 0, not ${-LARGEST}`],
      [configs.listConfigs({ page_size: -1 }), 'page_size', 'must be 0 to 1000, not -1'],
      [configs.resolveConfig({ agent, at_revision: 0n }), 'at_revision', 'must be at least 1, not 0'],
      [configs.resolveConfig({ agent, at_revision: -1n }), 'at_revision', 'must be at least 1, not -1'],
    ] as const)
      expect((await failure(call)).violations).toEqual([{ field, description }]);
  });

  it.each([-1, 1_000_000_000])('is rejected when the nanos of a duration are %i', async (nanos) => {
    const { agents, access, tokens, port } = service();
    const description = expect.stringMatching(/^must have nanos of 0 to 999999999/);
    const wait = await failure(
      agents.updateAgent({ agent: { id: 8 }, wait_for_adoption: { timeout: { seconds: 1n, nanos } } }),
    );
    expect(wait.violations).toEqual([{ field: 'wait_for_adoption.timeout', description }]);
    const token = await failure(
      access.createToken({ name: 'desk', role: 'ROLE_VIEWER', lifetime: { seconds: 600n, nanos } }),
    );
    expect(token.violations).toEqual([{ field: 'lifetime', description }]);
    const agentProcess = connect(port, present(tokens[1]).text);
    const request = { agent, public_key: Buffer.alloc(32, 9), lifetime: { seconds: 60n, nanos } };
    const lease = await failure(agentProcess.credentials.leaseApiKeys(request));
    expect(lease.violations).toEqual([{ field: 'lifetime', description }]);
    agentProcess.close();
  });
});

describe('text that is not UTF-8', () => {
  const service = useService('embedded');

  it('is rejected, while U+FFFD is stored unchanged', async () => {
    const name = 'a\uFFFDb';
    const { agent: created } = await service().agents.createAgent({
      agent: { name, agent_type: 'analyst', role: 'analyst', description: '\uFFFD' },
    });
    expect(created).toMatchObject({ name, description: '\uFFFD' });
    const http = present(service().running.httpPort);
    const found = await send(http, 'GET', `/v1/agents?page_size=1000`);
    expect(found.text).toContain(name);
    for (const path of ['/v1/agents/by-name/%ff', '/v1/configs?provider=%c3%28'])
      expect([400, 404]).toContain((await send(http, 'GET', path)).status);
    const query = await send(http, 'GET', '/v1/configs?provider=%c3%28');
    expect(errorOf(query).violations[0]).toMatchObject({
      field: 'provider',
      description: 'must be UTF-8 in percent-encoding',
    });
  });
});
