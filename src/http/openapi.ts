import type { DescField, DescMessage, JsonObject } from '@bufbuild/protobuf';
import type { Contract } from '../api/dispatch/contract.js';
import { anonymous, may } from '../domain/access.js';
import { version } from '../package.js';
import { commentOf } from './comments.js';
import { type FieldPath, isText } from './fields.js';
import type { Route } from './routes.js';
import { createSchemas, described, type Schemas } from './schemas.js';
import { writeTemplate } from './template.js';

/** Describes the routes as an OpenAPI 3.1 document. */
export function openApi(contract: Contract, routes: readonly Route[]): JsonObject {
  const { registry } = contract;
  const schemas = createSchemas();
  const services = [...new Set(routes.map((route) => route.method.parent))];
  const paths = pathsOf(contract, routes, schemas);
  const details = DETAILS.map((name) => schemas.refer(registry.getMessage(`google.rpc.${name}`) as DescMessage));
  return {
    openapi: '3.1.0',
    info: {
      title: 'agentllm',
      version,
      description: DESCRIPTION,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: OPTIONAL_TOKEN,
    tags: services.map((service) => described({ name: service.name }, commentOf(service))),
    paths,
    components: { schemas: { ...schemas.all, Error: errorSchema(details) }, securitySchemes: { bearerAuth: BEARER } },
  };
}

const BEARER = {
  type: 'http',
  scheme: 'bearer',
  description: 'An access token of the service, the output of `agentllm token create`.',
};
/** A service that is reachable only from its machine requires no token until the store has one. */
const OPTIONAL_TOKEN: JsonObject[] = [{ bearerAuth: [] }, {}];
const TOKEN: JsonObject[] = [{ bearerAuth: [] }];

const DESCRIPTION =
  'The unary methods of the gRPC contract as JSON over HTTP. Fields may be named in lowerCamelCase or as in the proto ' +
  'files; responses use lowerCamelCase. 64-bit integers are strings. Unknown fields are rejected.';

const DETAILS = ['ErrorInfo', 'BadRequest', 'ResourceInfo', 'PreconditionFailure', 'RetryInfo'];

const errorSchema = (details: JsonObject[]): JsonObject => ({
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['code', 'message', 'status', 'details'],
      properties: {
        code: { type: 'integer', description: 'The HTTP status.' },
        message: { type: 'string', description: 'The error and its remedy, for people.' },
        status: { type: 'string', description: 'The gRPC status code by name, such as NOT_FOUND.' },
        details: {
          type: 'array',
          description: `google.rpc.${DETAILS.join(', google.rpc.')}, distinguished by @type.`,
          items: {
            type: 'object',
            required: ['@type'],
            properties: { '@type': { type: 'string' } },
            anyOf: [...details, {}],
          },
        },
      },
    },
  },
});

/**
 * Two bindings with variables at the same positions are one path, even if the variables have different names: OpenAPI
 * does not distinguish paths by the names of their variables.
 */
function pathsOf(contract: Contract, routes: readonly Route[], schemas: Schemas): JsonObject {
  const names = new Map<string, readonly string[]>();
  const paths: { [path: string]: JsonObject } = {};
  for (const route of routes) {
    const { template } = route;
    const shape = writeTemplate(
      template,
      template.variables.map((_, index) => String(index)),
    );
    const variables = names.get(shape) ?? template.variables.map(parameterName);
    names.set(shape, variables);
    const path = writeTemplate(template, variables);
    paths[path] = { ...paths[path], [route.httpMethod.toLowerCase()]: operation(contract, route, variables, schemas) };
  }
  return paths;
}

/** A field path as a parameter name. Some client generators skip operations whose parameters contain dots. */
const parameterName = (path: string): string => path.replaceAll('.', '_');

function operation(contract: Contract, route: Route, names: readonly string[], schemas: Schemas): JsonObject {
  const { method, binding } = route;
  const name = `${method.parent.name}_${method.name}`;
  const comment = commentOf(method);
  const parameters = [...pathParameters(route, names, schemas), ...queryParameters(route, schemas)];
  return {
    operationId: binding === 0 ? name : `${name}_${binding + 1}`,
    tags: [method.parent.name],
    summary: comment.split(/(?<=\.)\s/, 1)[0] ?? '',
    description: comment,
    ...(!isOpen(contract, route) && { security: TOKEN }),
    ...(parameters.length > 0 && { parameters }),
    ...(route.body !== '' && { requestBody: requestBody(route, schemas) }),
    responses: {
      200: content('The response.', schemas.refer(method.output)),
      default: content('An error.', { $ref: '#/components/schemas/Error' }),
    },
  };
}

/** Whether anonymous callers may call the method, if the service admits them. */
const isOpen = ({ rule }: Contract, { method }: Route): boolean =>
  may(anonymous.role, rule(`/${method.parent.typeName}/${method.name}`).permission);

const content = (description: string, schema: JsonObject): JsonObject => ({
  description,
  content: { 'application/json': { schema } },
});

function requestBody({ method, body }: Route, schemas: Schemas): JsonObject {
  const field = method.input.fields.find((one) => one.name === body);
  if (field) return content(commentOf(field), schemas.value(field));
  const fromPath = 'Fields that are set by the path may be omitted in the body.';
  return { ...content(fromPath, schemas.refer(method.input)), required: true };
}

function pathParameters({ variables }: Route, names: readonly string[], schemas: Schemas): JsonObject[] {
  return variables.map((variable, index) => ({
    ...parameter('path', names[index] as string, variable, schemas),
    required: true,
  }));
}

function queryParameters({ method, body, variables }: Route, schemas: Schemas): JsonObject[] {
  if (body === '*') return [];
  const taken = variables.map(leaf);
  return leaves(method.input)
    .filter((path) => !taken.some((field) => field === leaf(path) || (field.oneof && field.oneof === leaf(path).oneof)))
    .filter(({ fields }) => fields[0]?.name !== body)
    .map((path) => parameter('query', path.fields.map((field) => field.jsonName).join('.'), path, schemas));
}

function parameter(location: 'path' | 'query', name: string, path: FieldPath, schemas: Schemas): JsonObject {
  return described({ name, in: location, schema: schemas.value(leaf(path)) }, commentOf(leaf(path)));
}

const leaf = ({ fields }: FieldPath) => fields.at(-1) as DescField;

/** Every field of a message that a query can set, including fields of nested messages. */
function leaves(desc: DescMessage, before: readonly DescField[] = []): FieldPath[] {
  return desc.fields.flatMap((field): FieldPath[] => {
    const fields = [...before, field];
    const path = { fields, text: fields.map((one) => one.name).join('.') };
    if (isText(path, { lists: true })) return [path];
    const isNested = field.fieldKind === 'message' && !before.some((one) => one.message === field.message);
    return isNested ? leaves(field.message, fields) : [];
  });
}
