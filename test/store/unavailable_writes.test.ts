import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { failure } from '../support/service.js';
import { startBackend, type TestBackend } from '../support/store.js';

const TRADER = { name: 'trader' };
const UNKNOWN_AGENT = { name: 'nobody' };
const MODEL = { provider: 'openai', model_name: 'gpt-4' };
/** Only the plan of a write detects that this is invalid: it compares the request with the stored config. */
const INVALID = { id: 8, max_tokens: 100_000_000 };

describe('a write while the database is unavailable', () => {
  let postgres: TestPostgres;
  let backend: TestBackend;
  beforeAll(async () => {
    postgres = await startPostgres({ own: true });
    backend = await startBackend({ url: await postgres.createDatabase('seeded') });
    await postgres.crash();
  });
  afterAll(async () => {
    await backend?.close();
    await postgres.stop();
  });

  it.each([
    ['written', false],
    ['only validated', true],
  ])('is rejected with INVALID_FIELDS when its fields are invalid and it is to be %s', async (_, validate_only) => {
    const error = await failure(backend.configs.updateConfig({ config: INVALID, validate_only }));
    expect([error.code, error.reason, error.fields]).toEqual([
      status.INVALID_ARGUMENT,
      'INVALID_FIELDS',
      ['config.max_tokens'],
    ]);
  });

  it.each([
    ['written', false],
    ['only validated', true],
  ])(
    'is rejected with UNAVAILABLE when it names an agent unknown to this replica and it is to be %s',
    async (_, validate_only) => {
      const request = { agent: UNKNOWN_AGENT, config: MODEL, validate_only };
      const error = await failure(backend.configs.createConfig(request));
      // Another replica may have created it.
      expect([error.code, error.reason]).toEqual([status.UNAVAILABLE, 'DATABASE_UNAVAILABLE']);
    },
  );

  it('is rejected with UNAVAILABLE when it is valid', async () => {
    const error = await failure(backend.configs.createConfig({ agent: TRADER, config: MODEL }));
    expect([error.code, error.reason]).toEqual([status.UNAVAILABLE, 'DATABASE_UNAVAILABLE']);
  });
});
