import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, it } from 'vitest';
import { readContract } from '../../src/api/dispatch/contract.js';
import { createRouter } from '../../src/http/routes.js';
import { writeTemplate } from '../../src/http/template.js';
import { useService } from '../support/service.js';
import { send } from './support.js';

interface Operation {
  readonly operationId: string;
  readonly description: string;
  readonly parameters?: readonly {
    name: string;
    in: string;
    required?: boolean;
    schema: JsonObject;
    description?: string;
  }[];
  readonly requestBody?: JsonObject;
  readonly security?: JsonValue;
}

const service = useService('embedded');
const contract = readContract();
// A stream has no route.
const methods = [...contract.registry].flatMap((type) =>
  type.kind === 'service' && type.typeName.startsWith('agentllm.')
    ? type.methods.filter(({ methodKind }) => methodKind === 'unary')
    : [],
);
const never = () => Promise.reject(new Error('not called'));
const { routes } = createRouter(contract, new Map(methods.map((m) => [`/${m.parent.typeName}/${m.name}`, never])));

let document: JsonObject;
let paths: Record<string, Record<string, Operation>>;

beforeAll(async () => {
  const answer = await send(service().running.httpPort as number, 'GET', '/openapi.json');
  expect(answer.headers['content-type']).toMatch(/^application\/json/);
  document = answer.json;
  paths = document['paths'] as unknown as typeof paths;
});

const operations = () =>
  Object.entries(paths).flatMap(([path, item]) => Object.entries(item).map(([verb, one]) => ({ path, verb, ...one })));

function walk(value: JsonValue, visit: (object: JsonObject) => void): void {
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value)) visit(value);
  for (const inner of Object.values(value)) walk(inner, visit);
}

describe('/openapi.json', () => {
  it('is OpenAPI 3.1 and has every binding once', () => {
    expect(document['openapi']).toBe('3.1.0');
    const shape = (path: string) => path.replace(/\{[^}]+\}/g, '{}');
    const described = operations().map(({ path, verb }) => `${verb} ${shape(path)}`);
    const bound = routes.map(
      ({ verb, template }) => `${verb.toLowerCase()} ${shape(writeTemplate(template, template.variables))}`,
    );
    expect(described.sort()).toEqual(bound.sort());
    expect(new Set(Object.keys(paths).map(shape)).size).toBe(Object.keys(paths).length);
    expect(new Set(operations().map((one) => one.operationId)).size).toBe(routes.length);
  });

  it('has a target for every $ref', () => {
    const { schemas } = document['components'] as { schemas: JsonObject };
    const used = new Set<string>();
    walk(document, ({ $ref }) => {
      if (typeof $ref === 'string') used.add($ref);
    });
    const known = Object.keys(schemas).map((name) => `#/components/schemas/${name}`);
    expect([...used].sort()).toEqual(known.sort());
  });

  it('declares the variables of each path, and only those, as required parameters', () => {
    for (const { path, parameters = [] } of operations()) {
      const variables = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name);
      const declared = parameters.filter((one) => one.in === 'path');
      expect(declared.map((one) => one.name)).toEqual(variables);
      expect(declared.every((one) => one.required)).toBe(true);
      expect(new Set(parameters.map((one) => one.name)).size).toBe(parameters.length);
    }
  });

  it('names them so that generators of clients take them', () => {
    for (const { path } of operations()) expect(path).toMatch(/^(\/[\w:-]+|\/\{[a-z][a-z0-9_]*\}|:\w+)+$/);
  });

  it('declares the tokens of the service, required where no caller can do without', () => {
    const { securitySchemes } = document['components'] as { securitySchemes: JsonObject };
    expect(securitySchemes).toMatchObject({ bearerAuth: { type: 'http', scheme: 'bearer' } });
    expect(document['security']).toEqual([{ bearerAuth: [] }, {}]);
    const strict = operations().filter(({ security }) => security !== undefined);
    expect(strict.every(({ security }) => JSON.stringify(security) === '[{"bearerAuth":[]}]')).toBe(true);
    const names = strict.map(({ operationId }) => operationId);
    expect(names).toContain('AccessService_CreateToken');
    expect(names).not.toContain('AgentService_ListAgents');
  });

  it('says what the proto files say', () => {
    for (const { description, parameters = [], operationId } of operations()) {
      expect(description, operationId).toMatch(/\w{3}/);
      for (const parameter of parameters)
        expect(parameter.description, `${operationId} ${parameter.name}`).toMatch(/\w{3}/);
    }
    const { schemas } = document['components'] as {
      schemas: Record<string, { properties?: Record<string, JsonObject> }>;
    };
    for (const [name, { properties = {} }] of Object.entries(schemas))
      if (name.startsWith('agentllm.'))
        for (const [field, schema] of Object.entries(properties))
          expect(schema['description'], `${name}.${field}`).toMatch(/\w{3}/);
  });

  it('has the query of a list and the body of a write', () => {
    const list = paths['/v1/agents/{agent_id}/configs']?.['get'];
    const names = list?.parameters?.map((one) => one.name);
    expect(names).toEqual(
      expect.arrayContaining(['agent_id', 'provider', 'enabled', 'pageSize', 'pageToken', 'minRevision']),
    );
    expect(names).not.toContain('agent.name');
    expect(paths['/v1/agents']?.['post']?.requestBody).toMatchObject({
      content: { 'application/json': { schema: { $ref: '#/components/schemas/agentllm.v1.CreateAgentRequest' } } },
    });
  });

  it('calls secrets nothing that an answer has', () => {
    const { schemas } = document['components'] as { schemas: Record<string, { properties?: JsonObject }> };
    const answers = Object.entries(schemas).filter(([name]) => !name.endsWith('Request'));
    for (const [, { properties = {} }] of answers) expect(Object.keys(properties)).not.toContain('apiKey');
  });
});
