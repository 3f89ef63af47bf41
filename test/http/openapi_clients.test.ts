import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { useService } from '../support/service.js';
import { send } from './support.js';

/*
 * Runs a validator and client generators for Python and TypeScript on /openapi.json.
 * .ci/run installs them; where they are absent, these tests are skipped.
 */

const PYTHON = packageFile('.cache/python/bin/python');
const GENERATOR = packageFile('.cache/openapi/node_modules/openapi-typescript/bin/cli.js');
const TYPESCRIPT = packageFile('.cache/openapi/node_modules/typescript/bin/tsc');
const has = { python: existsSync(PYTHON), typescript: existsSync(GENERATOR) && existsSync(TYPESCRIPT) };
if (!has.python)
  console.warn('skipped: no .cache/python with openapi-spec-validator and openapi-python-client (.ci/run)');
if (!has.typescript) console.warn('skipped: no .cache/openapi with openapi-typescript (.ci/run)');

const service = useService('embedded');
let scratch: string;
let file: string;
let operations: JsonObject[];

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'agentllm-test-'));
  file = join(scratch, 'openapi.json');
  const { json } = await send(service().running.httpPort as number, 'GET', '/openapi.json');
  writeFileSync(file, JSON.stringify(json));
  operations = Object.values(json['paths'] as Record<string, JsonObject>).flatMap(
    (item) => Object.values(item) as JsonObject[],
  );
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: scratch, encoding: 'utf8' });
  expect(status, `${stdout}${stderr}`).toBe(0);
  return `${stdout}${stderr}`;
}

describe.runIf(has.python)('the OpenAPI document with Python tools', () => {
  it('is valid', () => {
    run(PYTHON, '-m', 'openapi_spec_validator', '--errors', 'all', file);
  });

  it('generates a client that has every operation and can be imported', () => {
    const config = join(scratch, 'config.json');
    writeFileSync(config, JSON.stringify({ post_hooks: [], package_name_override: 'generated' }));
    const options = ['--path', file, '--output-path', 'client', '--meta', 'none', '--config', config];
    const output = run(PYTHON, '-m', 'openapi_python_client', 'generate', ...options);
    expect(output).not.toMatch(/unable to|cannot|error|skipp/i);
    const modules = readdirSync(join(scratch, 'client/api'), { recursive: true, encoding: 'utf8' }).filter((name) =>
      /[^_]\.py$/.test(name),
    );
    expect(modules).toHaveLength(operations.length);
    const importAll = 'import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)';
    run(
      PYTHON,
      '-c',
      importAll,
      ...modules.map((name) => `client.api.${name.replace(/\.py$/, '').replaceAll('/', '.')}`),
    );
  });
});

describe.runIf(has.typescript)('the OpenAPI document with TypeScript tools', () => {
  it('generates types that have every operation and compile', () => {
    const types = join(scratch, 'types.ts');
    run(process.execPath, GENERATOR, file, '--output', types);
    const text = readFileSync(types, 'utf8');
    for (const { operationId } of operations) expect(text).toMatch(new RegExp(`^ {4}${operationId}: \\{$`, 'm'));
    run(process.execPath, TYPESCRIPT, '--noEmit', '--strict', '--skipLibCheck', 'false', types);
  });
});
