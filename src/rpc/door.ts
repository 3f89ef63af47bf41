import {
  type Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { ServiceError } from '../errors.js';
import type { Access } from './access.js';
import { credentialsOf } from './origin.js';
import type { Reflection } from './reflection.js';
import { grpcStatus } from './status.js';

/**
 * Sends strangers away when they have shown their headers. grpc-js keeps what comes of a request until it is whole, for as
 * long as that takes: 150 calls that never ended their 4 MiB held 600 MB. It costs each call a few microseconds, so it stands
 * only where a network can reach the service; whoever passes is asked again by the adapter.
 */
export const atTheDoor =
  (access: Access, reflection: Reflection): ServerInterceptor =>
  ({ path }, call) => {
    if (path.startsWith('/grpc.health.') || (path.startsWith('/grpc.reflection.') && reflection === 'on'))
      return new ServerInterceptingCall(call);
    return new ServerInterceptingCall(call, {
      start: (next) => next({ onReceiveMetadata: (metadata, go) => receive(access, path, call, metadata, go) }),
    });
  };

function receive(
  access: Access,
  path: string,
  call: ServerInterceptingCallInterface,
  metadata: Metadata,
  go: (metadata: Metadata) => void,
): void {
  try {
    access.identify(credentialsOf({ metadata, getAuthContext: () => call.getAuthContext() }), path.slice(1));
  } catch (error) {
    call.sendStatus(grpcStatus(error as ServiceError));
    return;
  }
  go(metadata);
}
