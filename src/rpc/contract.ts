import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescMethod, type FileRegistry, fromBinary, getOption } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { packageFile } from '../package.js';

/** The contract as data: what the proto files say of services, methods and options. */
export interface Contract {
  readonly registry: FileRegistry;
  /** The permission that a method needs, by its path `/package.Service/Method`. */
  permission(path: string): string;
  /** The full name of a method's request message. */
  requestType(path: string): string;
}

const OPTION = 'agentllm.v1.permission';

export function readContract(): Contract {
  const registry = createFileRegistry(
    fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb'))),
  );
  const option = registry.getExtension(OPTION);
  if (!option) throw new Error(`gen/descriptor.binpb has no option ${OPTION}; run npm run generate`);
  const permissions = registry.getEnum('agentllm.v1.Permission');
  const methodAt = (path: string): DescMethod => {
    const [, service = '', name = ''] = path.split('/');
    const method = registry.getService(service)?.methods.find((m) => m.name === name);
    if (!method) throw new Error(`gen/descriptor.binpb has no method ${path}; run npm run generate`);
    return method;
  };
  return {
    registry,
    permission(path) {
      const name = permissions?.value[getOption(methodAt(path), option) as number]?.name;
      if (!name || name === 'PERMISSION_UNSPECIFIED') throw new Error(`${path} declares no permission`);
      return name;
    },
    requestType: (path) => methodAt(path).input.typeName,
  };
}
