import { type DescExtension, type DescMethod, getOption } from '@bufbuild/protobuf';
import type { Invoke } from '../api/dispatch/api_service.js';
import type { Contract } from '../api/dispatch/contract.js';
import { type FieldPath, isText, resolvePath } from './fields.js';
import { compileTemplate, type Template } from './template.js';

/** The binding of an HTTP method and path template to a method of the contract. */
export interface Route {
  readonly httpMethod: string;
  readonly method: DescMethod;
  /** 0, or the number of the additional binding. */
  readonly binding: number;
  readonly template: Template;
  /** The fields that the variables of the template set. */
  readonly variables: readonly FieldPath[];
  /** `*`: the body is the request; a field name: the body is this field; empty: there is no body. */
  readonly body: string;
  readonly invoke: Invoke;
}

/** The route of a path, or the HTTP methods that the path allows. */
export type Found =
  | { readonly route: Route; readonly values: readonly string[] }
  | { readonly allowed: readonly string[] };

export interface Router {
  readonly routes: readonly Route[];
  find(httpMethod: string, path: string): Found | undefined;
}

/** google.api.HttpRule as the registry decodes it. */
interface HttpRule {
  readonly pattern: { readonly case: string | undefined; readonly value?: unknown };
  readonly body: string;
  readonly responseBody: string;
  readonly additionalBindings: readonly HttpRule[];
}

/** Creates the routes of all methods; throws if an annotation is invalid. */
export function createRouter({ registry }: Contract, methods: ReadonlyMap<string, Invoke>): Router {
  const option = registry.getExtension('google.api.http');
  if (!option) throw new Error('gen/descriptor.binpb has no option google.api.http; run npm run generate');
  const routes = [...methods].flatMap(([path, invoke]) => {
    const [, service = '', name = ''] = path.split('/');
    const method = registry.getService(service)?.methods.find((m) => m.name === name);
    if (!method) throw new Error(`gen/descriptor.binpb has no method ${path}; run npm run generate`);
    return bindingsOf(method, option).map((rule, binding) => ({ ...routeOf(method, rule), binding, invoke }));
  });
  routes.sort(({ template: { rank: a } }, { template: { rank: b } }) => (a < b ? -1 : a > b ? 1 : 0));
  refuseCollisions(routes);
  return { routes, find: (httpMethod, path) => find(routes, httpMethod, path) };
}

function bindingsOf(method: DescMethod, option: DescExtension): readonly HttpRule[] {
  const rule = getOption(method, option) as HttpRule;
  if (rule.pattern.case === undefined) throw new Error(`${method} has no google.api.http annotation`);
  return [rule, ...rule.additionalBindings];
}

function routeOf(method: DescMethod, { pattern, body, responseBody }: HttpRule): Omit<Route, 'binding' | 'invoke'> {
  const fail = (what: string) => new Error(`${method}: google.api.http ${what}`);
  if (typeof pattern.value !== 'string' || responseBody !== '') throw fail('uses custom or response_body');
  const template = compileTemplate(pattern.value);
  const variables = template.variables.map((path) => {
    const field = resolvePath(method.input, path);
    if (!field || !isText(field))
      throw fail(`${pattern.value} names ${path}, which is not a single value of the request`);
    return field;
  });
  if (body !== '' && body !== '*' && !resolvePath(method.input, body)) throw fail(`body names no field: ${body}`);
  return { httpMethod: (pattern.case as string).toUpperCase(), method, template, variables, body };
}

function refuseCollisions(routes: readonly Route[]): void {
  const taken = new Map<string, Route>();
  for (const route of routes) {
    const binding = `${route.httpMethod} ${route.template.pattern.source}`;
    const other = taken.get(binding);
    if (other) throw new Error(`${other.method} and ${route.method} have the same google.api.http binding: ${binding}`);
    taken.set(binding, route);
  }
}

/** The first matching route in the order of ranks: a literal segment takes precedence over a variable. */
function find(routes: readonly Route[], httpMethod: string, path: string): Found | undefined {
  const allowed = new Set<string>();
  for (const route of routes) {
    const match = route.template.pattern.exec(path);
    if (!match) continue;
    if (route.httpMethod === httpMethod) return { route, values: match.slice(1) };
    allowed.add(route.httpMethod);
  }
  return allowed.size > 0 ? { allowed: [...allowed] } : undefined;
}
