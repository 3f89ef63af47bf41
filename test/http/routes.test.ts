import {
  create,
  createFileRegistry,
  createRegistry,
  type DescExtension,
  fromJson,
  setExtension,
} from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, MethodOptionsSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, it } from 'vitest';
import { readContract } from '../../src/api/dispatch/contract.js';
import { createRouter } from '../../src/http/routes.js';
import { compileTemplate, writeTemplate } from '../../src/http/template.js';

const { registry } = readContract();
const http = registry.getExtension('google.api.http') as DescExtension;
const never = () => Promise.reject(new Error('not called'));

/** A router for a service with these annotations and with requests `{ a: string, m: { b: int32 }, list: [string] }`. */
function routerOf(...rules: (object | undefined)[]) {
  const scalar = (name: string, number: number, type: 'TYPE_STRING' | 'TYPE_INT32', label = 'LABEL_OPTIONAL') => ({
    name,
    number,
    type,
    label,
  });
  const file = fromJson(FileDescriptorProtoSchema, {
    name: 't.proto',
    package: 't',
    syntax: 'proto3',
    dependency: ['google/api/annotations.proto'],
    messageType: [
      { name: 'M', field: [scalar('b', 1, 'TYPE_INT32')] },
      {
        name: 'R',
        field: [
          scalar('a', 1, 'TYPE_STRING'),
          { name: 'm', number: 2, type: 'TYPE_MESSAGE', typeName: '.t.M', label: 'LABEL_OPTIONAL' },
          scalar('list', 3, 'TYPE_STRING', 'LABEL_REPEATED'),
        ],
      },
    ],
    service: [{ name: 'S', method: rules.map((_, i) => ({ name: `M${i}`, inputType: '.t.R', outputType: '.t.R' })) }],
  });
  for (const [index, rule] of rules.entries()) {
    if (!rule || http.message === undefined) continue;
    const options = create(MethodOptionsSchema);
    setExtension(options, http, fromJson(http.message, rule as never) as never);
    const method = file.service[0]?.method[index];
    if (method) method.options = options;
  }
  const files = createFileRegistry(file, (name) => registry.getFile(name));
  const allTypes = createRegistry(files, registry) as unknown as typeof registry;
  const contract = {
    registry: allTypes,
    rule: () => ({ permission: 'PERMISSION_METRICS_READ', agentRefs: undefined }) as const,
    requestType: (): never => expect.unreachable(),
  };
  return createRouter(contract, new Map(rules.map((_, index) => [`/t.S/M${index}`, never])));
}

const methodAt = (router: ReturnType<typeof routerOf>, verb: string, path: string) => {
  const found = router.find(verb, path);
  return found && 'route' in found ? [found.route.method.name, ...found.values] : found?.allowed;
};

describe('a path template', () => {
  it.each([
    ['/v1/a', '/v1/a', []],
    ['/v1/{a}', '/v1/x', ['x']],
    ['/v1/{a=*}:go', '/v1/x:y:go', ['x:y']],
    ['/v1/{a=**}', '/v1/x/y', ['x/y']],
    ['/v1/{a=b/*}/c', '/v1/b/x/c', ['b/x']],
    ['/v1/{a}/c.d/{m.b}', '/v1/1/c.d/2', ['1', '2']],
  ])('%s matches %s', (template, path, values) => {
    expect(compileTemplate(template).pattern.exec(path)?.slice(1)).toEqual(values);
  });

  it.each([
    ['/v1/{a}', '/v1/'],
    ['/v1/{a}', '/v1/x/y'],
    ['/v1/{a=**}', '/v1/'],
    ['/v1/{a=**}', '/v1//x'],
    ['/v1/c.d', '/v1/cxd'],
    ['/v1/{a}:go', '/v1/:go'],
  ])('%s does not match %s', (template, path) => {
    expect(compileTemplate(template).pattern.test(path)).toBe(false);
  });

  it.each(['', 'v1', '/v1/', '/v1/{}', '/v1/{a', '/v1/a}', '/v1/{a}b', '/v1/*', '/v1:go/x', '/v1/a:'])(
    'is rejected when it is malformed: %j',
    (template) => {
      expect(() => compileTemplate(template)).toThrow('is not a path template');
    },
  );

  it('can be written with other variable names', () => {
    expect(writeTemplate(compileTemplate('/v1/{a}/x/{m.b}:go'), ['p', 'q'])).toBe('/v1/{p}/x/{q}:go');
  });
});

describe('the router', () => {
  it('prefers literals to variables and a custom verb to none', () => {
    const rules = ['/v1/{a=**}', '/v1/{a}', '/v1/{a}:go', '/v1/x', '/v1/{a}/{m.b}', '/v1/x/{m.b}'];
    const router = routerOf(...rules.map((get) => ({ get })));
    expect(methodAt(router, 'GET', '/v1/x')).toEqual(['M3']);
    expect(methodAt(router, 'GET', '/v1/y')).toEqual(['M1', 'y']);
    expect(methodAt(router, 'GET', '/v1/y:go')).toEqual(['M2', 'y']);
    expect(methodAt(router, 'GET', '/v1/x/1')).toEqual(['M5', '1']);
    expect(methodAt(router, 'GET', '/v1/y/1')).toEqual(['M4', 'y', '1']);
    expect(methodAt(router, 'GET', '/v1/y/1/z')).toEqual(['M0', 'y/1/z']);
    expect(methodAt(router, 'POST', '/v1/x')).toEqual(['GET']);
    expect(methodAt(router, 'GET', '/v2')).toBeUndefined();
  });

  it.each([
    ['a method without a binding', [undefined], 'has no google.api.http'],
    [
      'the same binding for two methods',
      [{ get: '/v1/{a}' }, { get: '/v1/{m.b}' }],
      'the same google.api.http binding',
    ],
    [
      'the same binding twice for one method',
      [{ get: '/v1/a', additionalBindings: [{ get: '/v1/a' }] }],
      'the same google.api.http binding',
    ],
    ['a variable for an unknown field', [{ get: '/v1/{nothing}' }], 'names nothing'],
    ['a variable for a field of a scalar', [{ get: '/v1/{a.b}' }], 'names a.b'],
    ['a variable for a message', [{ get: '/v1/{m}' }], 'names m'],
    ['a variable for a list', [{ get: '/v1/{list}' }], 'names list'],
    ['a body for an unknown field', [{ post: '/v1', body: 'nothing' }], 'body names no field'],
    ['a response_body', [{ get: '/v1', responseBody: 'a' }], 'response_body'],
    ['a custom HTTP method', [{ custom: { kind: 'SEARCH', path: '/v1' } }], 'custom'],
    ['an invalid path', [{ get: 'v1' }], 'not a path template'],
  ])('is not created when the contract has %s', (_, rules, message) => {
    expect(() => routerOf(...rules)).toThrow(message);
  });
});
