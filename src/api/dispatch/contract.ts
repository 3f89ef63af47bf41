import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
  fromBinary,
  getOption,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { may } from '../../domain/access.js';
import { packageFile } from '../../package.js';

/** What a method requires of its callers. */
export interface MethodRule {
  readonly permission: Permission;
  /**
   * The fields of its request that name agents. Undefined for a method that concerns the caller itself, or that a token
   * for certain agents cannot call.
   */
  readonly agentRefs: readonly string[] | undefined;
}

/** The contract as data: the services, methods and options of the proto files. */
export interface Contract {
  readonly registry: FileRegistry;
  /** The rule of a method, by its path `/package.Service/Method`. */
  rule(path: string): MethodRule;
  /** The request message of a method. */
  requestType(path: string): DescMessage;
}

const PERMISSION = 'agentllm.v1.permission';
const ABOUT_CALLER = 'agentllm.v1.about_caller';
const AGENT_REF = 'agentllm.v1.AgentRef';

export function readContract(): Contract {
  const registry = createFileRegistry(
    fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb'))),
  );
  const optionNamed = (name: string) => {
    const option = registry.getExtension(name);
    if (!option) throw new Error(`gen/descriptor.binpb has no option ${name}; run npm run generate`);
    return option;
  };
  const [permissionOption, aboutCaller] = [optionNamed(PERMISSION), optionNamed(ABOUT_CALLER)];
  const permissions = registry.getEnum('agentllm.v1.Permission');
  const methodAt = (path: string): DescMethod => {
    const [, service = '', name = ''] = path.split('/');
    const method = registry.getService(service)?.methods.find((m) => m.name === name);
    if (!method) throw new Error(`gen/descriptor.binpb has no method ${path}; run npm run generate`);
    return method;
  };
  return {
    registry,
    rule(path) {
      const method = methodAt(path);
      const name = permissions?.value[getOption(method, permissionOption) as number]?.name;
      const permission = Object.values(Permission).find((known) => known === name);
      if (!permission || permission === Permission.UNSPECIFIED) throw new Error(`${path} declares no permission`);
      const scoped = may('ROLE_AGENT', permission) && getOption(method, aboutCaller) !== true;
      return { permission, agentRefs: scoped ? agentRefsOf(method) : undefined };
    },
    requestType: (path) => methodAt(path).input,
  };
}

/** The fields of a request that name agents. */
function agentRefsOf({ input }: DescMethod): string[] {
  const fields = input.fields.filter(({ message }) => message?.typeName === AGENT_REF);
  const nested = input.fields.filter(
    ({ message }) => message && message.typeName !== AGENT_REF && containsRefs(message),
  );
  if (fields.length === 0 || nested.length > 0)
    throw new Error(`${input.typeName} must name its agents in top-level fields, or its method must be about_caller`);
  return fields.map(({ name }) => name);
}

function containsRefs(message: DescMessage, seen = new Set<DescMessage>()): boolean {
  if (seen.has(message)) return false;
  seen.add(message);
  return message.fields.some(
    (field) => field.message && (field.message.typeName === AGENT_REF || containsRefs(field.message, seen)),
  );
}
