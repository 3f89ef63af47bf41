import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newConfig } from '../api/handlers/support.js';
import { send } from '../http/support.js';
import { type Handler, startFakeProvider } from '../providers/fake_provider.js';
import { environment, provide, text } from '../support/checked_provider.js';
import { startCommand, useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connect, unique } from '../support/service.js';
import { connectPg } from '../support/sql.js';

const KEYS = {
  own: 'sk-PLANTEDMARK-own-5f1d7ab0c3',
  credential: 'sk-PLANTEDMARK-credential-5f1d7ab0c3',
  environment: 'sk-PLANTEDMARK-environment-5f1d7ab0c3',
  adhoc: 'sk-PLANTEDMARK-adhoc-5f1d7ab0c3',
};
const MARK = 'PLANTEDMARK';
useDirectories();

/** A provider that repeats the received key in every possible place of its response. */
const echo =
  (status: number): Handler =>
  (request, response) => {
    const key = String(request.headers['authorization'] ?? request.headers['x-api-key'] ?? '').replace('Bearer ', '');
    response.writeHead(status, {
      'content-type': 'application/json',
      'retry-after': key,
      'x-request-id': key,
      location: `http://127.0.0.1:1/${key}`,
      'www-authenticate': key,
    });
    response.end(
      JSON.stringify({
        object: 'list',
        data: [{ id: key }],
        error: { message: `wrong key ${key}`, type: key, code: key },
        code: key,
      }),
    );
  };

describe('the API keys of checks', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  it('appear in no response, error, trace log, metric, history, health row or table', async () => {
    const DATABASE_URL = await postgres.createDatabase('seeded');
    const command = await startCommand({
      ...environment,
      DATABASE_URL,
      LOG_LEVEL: 'trace',
      HTTP_ADDRESS: '127.0.0.1:0',
      MINE_API_KEY: KEYS.environment,
      OPENAI_API_KEY: `${KEYS.environment} with a space`,
    });
    const [, http] = await command.untilOutput(/HTTP {6}[^:\s]+:(\d+)/);
    const port = Number(http);
    const clients = connect(command.port);
    const responses: unknown[] = [];
    const record = async (call: Promise<unknown>) => {
      responses.push(
        await call.catch((error: Error & { violations?: unknown; metadata?: unknown }) => [
          error.message,
          error.violations,
          error.metadata,
          text(error),
        ]),
      );
    };
    try {
      for (const status of [200, 302, 400, 401, 402, 403, 404, 418, 429, 500, 503]) {
        const fake = await startFakeProvider(status % 2 ? 'claude' : 'openai');
        fake.on('*', echo(status));
        const provider = await provide(clients, fake);
        const name = unique('desk');
        await record(
          clients.credentials.createCredential({ credential: { name, provider }, api_key: KEYS.credential }),
        );
        const own = await newConfig(clients, { provider, model_name: 'gpt-4o' });
        await record(clients.configs.updateConfig({ config: { id: own.id }, api_key: KEYS.own, reason: 'a key' }));
        const named = await newConfig(clients, { provider, model_name: 'gpt-4o', credential_name: name });
        const bare = await newConfig(clients, { provider, model_name: 'gpt-4o' });
        for (const { id } of [own, named, bare]) await record(clients.configs.checkConfigHealth({ id }));
        await record(clients.providers.validateApiKey({ provider, api_key: KEYS.adhoc, model_name: 'gpt-4o' }));
        responses.push(
          (await send(port, 'POST', `/v1/providers/${provider}:validateApiKey`, { body: { apiKey: KEYS.adhoc } })).text,
        );
        responses.push((await send(port, 'POST', `/v1/configs/${own.id}:checkHealth`, { body: {} })).text);
        expect(JSON.stringify(fake.seen)).toContain(KEYS.own);
      }
      // Invalid requests, a caller that cancels, and a key in a path.
      const unresponsive = await startFakeProvider('openai');
      unresponsive.on('*', () => undefined);
      const slow = await provide(clients, unresponsive);
      await record(clients.providers.validateApiKey({ provider: slow, api_key: KEYS.adhoc }, { deadlineMs: 300 }));
      await record(clients.providers.validateApiKey({ provider: slow, api_key: `${KEYS.adhoc} ${KEYS.adhoc}` }));
      await record(
        clients.providers.validateApiKey({ provider: KEYS.adhoc.toLowerCase(), api_key: KEYS.adhoc.repeat(20) }),
      );
      const path = `/v1/providers/${slow}:validateApiKey`;
      for (const body of [
        `{"apiKey": "${KEYS.adhoc}"`,
        `{"apiKey": "${KEYS.adhoc}", "apiKey": "${KEYS.adhoc}"}`,
        `{"unknownField": "${KEYS.adhoc}"}`,
        `{"apiKey": ["${KEYS.adhoc}"]}`,
        `{"apiKey": {"x":"${KEYS.adhoc}"}}`,
        `"${KEYS.adhoc}"`,
      ])
        responses.push(
          (await send(port, 'POST', path, { body, headers: { 'content-type': 'application/json' } })).text,
        );
      responses.push((await send(port, 'POST', path, { body: { apiKey: `${KEYS.adhoc} x` } })).text);
      const openai = await newConfig(clients, { provider: 'openai', model_name: 'gpt-4o' });
      await record(clients.configs.checkConfigHealth({ id: openai.id }));
      await record(clients.configs.listConfigHealth({}));
      responses.push((await send(port, 'GET', '/metrics')).text, (await send(port, 'GET', '/v1/configs:health')).text);
    } finally {
      clients.close();
    }
    const session = await connectPg(DATABASE_URL);
    const dump: string[] = [];
    try {
      const { rows } = await session.query("select tablename from pg_tables where schemaname = 'public'");
      for (const { tablename } of rows) {
        const table = await session.query(`select t::text as line, row_to_json(t)::text as json from ${tablename} t`);
        dump.push(`${tablename}:`, ...table.rows.flatMap(({ line, json }) => [line, json]));
      }
    } finally {
      await session.end();
    }
    command.child.kill('SIGTERM');
    await command.ended;
    const output = command.output();
    // The searched texts must not be empty.
    expect(output).toContain('ValidateApiKey');
    expect(dump.join('\n')).toContain('config_health:');
    expect(dump.join('\n').length).toBeGreaterThan(10_000);
    const places = { responses: text(responses), log: output, database: dump.join('\n') };
    for (const [place, content] of Object.entries(places))
      for (const form of [
        MARK,
        Buffer.from('sk-PLANTEDMARK').toString('base64').slice(0, 11),
        Buffer.from(MARK).toString('hex'),
        encodeURIComponent(KEYS.adhoc),
        '5f1d7ab0c3',
        ...['own', 'credential', 'environment', 'adhoc'].map((one) =>
          Buffer.from(`PLANTEDMARK-${one}-5f1d`).toString('hex'),
        ),
      ]) {
        const at = content.toLowerCase().indexOf(form.toLowerCase());
        expect(at < 0 ? 'nowhere' : `${place}: …${content.slice(Math.max(0, at - 150), at + 60)}…`).toBe('nowhere');
      }
  });
});
