// libfcgi (Debian: libfcgi-dev). Only the multi-thread API of fcgiapp.h is used; FCGX_FPrintF is variadic and not imported.
#ifndef CLAUDE_FCGI_CFASTCGI_SHIM_H
#define CLAUDE_FCGI_CFASTCGI_SHIM_H
#include <fastcgi.h>
#include <fcgiapp.h>
#endif
