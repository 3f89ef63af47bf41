import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { failure } from '../../support/service.js';
import { startBackend, type TestBackend } from '../../support/store.js';

/** A poll interval that does not elapse during the test. */
const NO_POLL_MS = 3_600_000;
const CONFIG = 8;

describe('a restored store with the same revision and another nonce', () => {
  let backend: TestBackend;
  afterEach(() => backend.close());

  /** Writes once, then replaces that write by another with the same revision, as a restore followed by a write does. */
  async function replaceLastWrite() {
    backend = await startBackend({ pollIntervalMs: NO_POLL_MS });
    const written = await backend.configs.updateConfig({ config: { id: CONFIG, max_tokens: 200 } });
    const { identity } = backend.store.state;
    const nonce = randomUUID();
    await backend.database.knex.transaction(async (tx) => {
      await tx('store_state').update({ nonce });
      await tx('config_revisions')
        .where({ revision: Number(written.revision) })
        .update({ nonce });
      await tx('agent_llm_configs').where({ id: CONFIG }).update({ max_tokens: 300 });
    });
    return { written, identity, nonce };
  }

  it('is reloaded by a replica that polls, after which earlier etags are stale', async () => {
    const { written, identity, nonce } = await replaceLastWrite();
    await backend.feed.poll();
    expect(backend.store.state).toMatchObject({ revision: Number(written.revision), nonce });
    expect(backend.store.state.identity).not.toBe(identity);
    const { config } = await backend.configs.getConfig({ id: CONFIG });
    expect(config?.max_tokens).toBe(300);
    expect(config?.etag).not.toBe(written.config?.etag);
  });

  it('has the identity that a replica has after its write was rejected', async () => {
    await replaceLastWrite();
    await backend.database.knex('agent_configs').where({ name: 'trader' }).update({ name: 'renamed' });
    const error = await failure(
      backend.configs.createConfig({ agent: { name: 'trader' }, config: { provider: 'openai', model_name: 'gpt-4' } }),
    );
    const [stored] = await backend.database.knex('store_state').select('identity');
    expect([error.reason, backend.store.state.identity]).toEqual(['AGENT_NOT_FOUND', stored.identity]);
  });

  it('is reloaded by a replica that writes', async () => {
    const { written, nonce } = await replaceLastWrite();
    const { config, revision } = await backend.configs.updateConfig({ config: { id: CONFIG, top_p: 0.5 } });
    expect([config?.max_tokens, config?.top_p, revision]).toEqual([300, 0.5, written.revision + 1n]);
    expect(backend.store.state.nonce).not.toBe(nonce);
  });
});
