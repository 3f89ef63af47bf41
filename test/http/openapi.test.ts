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
// Streams have no HTTP route.
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
  const response = await send(service().running.httpPort as number, 'GET', '/openapi.json');
  expect(response.headers['content-type']).toMatch(/^application\/json/);
  document = response.json;
  paths = document['paths'] as unknown as typeof paths;
});

const operations = () =>
  Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([verb, operation]) => ({ path, verb, ...operation })),
  );

function visitObjects(value: JsonValue, visit: (object: JsonObject) => void): void {
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value)) visit(value);
  for (const inner of Object.values(value)) visitObjects(inner, visit);
}

describe('/openapi.json', () => {
  it('is OpenAPI 3.1 and contains every HTTP binding once', () => {
    expect(document['openapi']).toBe('3.1.0');
    const shape = (path: string) => path.replace(/\{[^}]+\}/g, '{}');
    const described = operations().map(({ path, verb }) => `${verb} ${shape(path)}`);
    const bound = routes.map(
      ({ httpMethod, template }) => `${httpMethod.toLowerCase()} ${shape(writeTemplate(template, template.variables))}`,
    );
    expect(described.sort()).toEqual(bound.sort());
    expect(new Set(Object.keys(paths).map(shape)).size).toBe(Object.keys(paths).length);
    expect(new Set(operations().map(({ operationId }) => operationId)).size).toBe(routes.length);
  });

  it('has a target for every $ref', () => {
    const { schemas } = document['components'] as { schemas: JsonObject };
    const used = new Set<string>();
    visitObjects(document, ({ $ref }) => {
      if (typeof $ref === 'string') used.add($ref);
    });
    const known = Object.keys(schemas).map((name) => `#/components/schemas/${name}`);
    expect([...used].sort()).toEqual(known.sort());
  });

  it('declares exactly the variables of each path as required path parameters', () => {
    for (const { path, parameters = [] } of operations()) {
      const variables = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name);
      const declared = parameters.filter((one) => one.in === 'path');
      expect(declared.map((one) => one.name)).toEqual(variables);
      expect(declared.every((one) => one.required)).toBe(true);
      expect(new Set(parameters.map((one) => one.name)).size).toBe(parameters.length);
    }
  });

  it('uses path variable names that client generators accept', () => {
    for (const { path } of operations()) expect(path).toMatch(/^(\/[\w:-]+|\/\{[a-z][a-z0-9_]*\}|:\w+)+$/);
  });

  it('declares bearer tokens and requires them for operations that no anonymous caller may call', () => {
    const { securitySchemes } = document['components'] as { securitySchemes: JsonObject };
    expect(securitySchemes).toMatchObject({ bearerAuth: { type: 'http', scheme: 'bearer' } });
    expect(document['security']).toEqual([{ bearerAuth: [] }, {}]);
    const requiringToken = operations().filter(({ security }) => security !== undefined);
    expect(requiringToken.every(({ security }) => JSON.stringify(security) === '[{"bearerAuth":[]}]')).toBe(true);
    const names = requiringToken.map(({ operationId }) => operationId);
    expect(names).toContain('AccessService_CreateToken');
    expect(names).not.toContain('AgentService_ListAgents');
  });

  it('has a description for every operation, parameter and field', () => {
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

  it('declares the query parameters of a list and the body of a write', () => {
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

  it('has no API key in a response schema', () => {
    const { schemas } = document['components'] as { schemas: Record<string, { properties?: JsonObject }> };
    const responses = Object.entries(schemas).filter(([name]) => !name.endsWith('Request'));
    for (const [, { properties = {} }] of responses) expect(Object.keys(properties)).not.toContain('apiKey');
  });
});
